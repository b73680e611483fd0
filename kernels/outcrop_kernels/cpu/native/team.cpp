#include "team.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

namespace outcrop {
namespace {

// Jobs of one step follow each other within microseconds: a worker that sleeps in between wakes too late.
// Between steps it must sleep, for the cores are shared with the rest of the server.
constexpr auto kSpin = std::chrono::microseconds(60);

// Half a millisecond and more. The rest of the server often needs a core for less than that, and a thread that sleeps
// in a virtual machine takes long to wake.
constexpr int kPatience = 40'000;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

struct Team {
    std::mutex turn;
    std::vector<std::thread> workers;
    std::atomic<unsigned> round{0};
    std::atomic<int> unfinished{0};
    std::atomic<bool> stopping{false};
    Job job = nullptr;
    const void* context = nullptr;

    ~Team() { stop(); }

    void stop() {
        stopping.store(true);
        round.fetch_add(1);
        round.notify_all();
        for (auto& worker : workers) worker.join();
        workers.clear();
        stopping.store(false);
    }

    void work(int part, unsigned seen) {
        for (;;) {
            seen = next_round(seen);
            if (stopping.load()) return;
            job(context, part, static_cast<int>(workers.size()) + 1);
            if (unfinished.fetch_sub(1, std::memory_order_release) == 1) unfinished.notify_one();
        }
    }

    unsigned next_round(unsigned seen) {
        const auto deadline = std::chrono::steady_clock::now() + kSpin;
        for (;;) {
            for (int spin = 0; spin < 256; ++spin) {
                const unsigned now = round.load(std::memory_order_acquire);
                if (now != seen) return now;
                relax();
            }
            if (std::chrono::steady_clock::now() > deadline) {
                round.wait(seen, std::memory_order_acquire);
            }
        }
    }
};

Team& team() {
    // Never destroyed: a process that ends by _exit or with workers asleep must not wait for them.
    static Team* the_team = new Team;
    return *the_team;
}

}  // namespace

void start_team(int threads) {
    Team& members = team();
    const std::lock_guard<std::mutex> turn(members.turn);
    members.stop();
    const unsigned seen = members.round.load();
    members.workers.reserve(threads - 1);
    // All entries exist before the first worker may look at their number.
    for (int part = 1; part < threads; ++part) members.workers.emplace_back();
    for (int part = 1; part < threads; ++part) {
        members.workers[part - 1] = std::thread([&members, part, seen] { members.work(part, seen); });
    }
}

int team_size() { return static_cast<int>(team().workers.size()) + 1; }

void run_team(Job job, const void* context) {
    Team& members = team();
    const std::lock_guard<std::mutex> turn(members.turn);
    const int parts = static_cast<int>(members.workers.size()) + 1;
    if (parts > 1) {
        members.job = job;
        members.context = context;
        members.unfinished.store(parts - 1, std::memory_order_relaxed);
        members.round.fetch_add(1, std::memory_order_release);
        members.round.notify_all();
    }
    job(context, 0, parts);
    wait_for(members.unfinished, 0);
}

// The others are at work and soon done, unless something else has their core: they get it back sooner if this thread
// sleeps.
void wait_for(const std::atomic<int>& value, int wanted) {
    for (int spin = 0; spin < kPatience; ++spin) {
        if (value.load(std::memory_order_acquire) == wanted) return;
        relax();
    }
    for (int now; (now = value.load(std::memory_order_acquire)) != wanted;)
        value.wait(now, std::memory_order_acquire);
}

}  // namespace outcrop
