#include "program.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "team.h"

namespace outcrop {
namespace {

// A piece takes some microseconds at least, beside which the taking of it is nothing.
constexpr long kPiece = 1 << 16;
constexpr int kPiecesOfThread = 64;

int pieces_of(long values, int threads) {
    return static_cast<int>(std::clamp<long>(values / kPiece, 1, kPiecesOfThread * threads));
}

// How far a kernel is. A cache line of its own, for threads are at different kernels for a moment.
struct alignas(64) Progress {
    std::atomic<int> taken{0}, finished{0};

    // Takes some of the pieces that are left, half of a thread's fair share: many at first, for weights are read
    // faster in one stretch, and single ones in the end, for the others wait for whoever has the last. False when none
    // are left.
    bool take(Part& part, int threads) {
        int first = taken.load(std::memory_order_relaxed), count;
        do {
            if (first >= part.of) return false;
            count = std::max(1, (part.of - first) / (2 * threads));
        } while (!taken.compare_exchange_weak(first, first + count, std::memory_order_relaxed));
        part.first = first;
        part.last = first + count;
        return true;
    }

    void finish(const Part& part) {
        const int count = part.last - part.first;
        if (finished.fetch_add(count, std::memory_order_acq_rel) == part.of - count) finished.notify_all();
    }
};

}  // namespace

void Program::run(int64_t* times) const {
    using Clock = std::chrono::steady_clock;
    std::vector<Progress> progress(entries_.size());
    parallel([&](int thread, int threads) {
        Clock::time_point begun = times != nullptr ? Clock::now() : Clock::time_point();
        for (long kernel = 0; kernel < size(); ++kernel) {
            const Entry& entry = entries_[kernel];
            Progress& at = progress[kernel];
            Part part{0, 0, pieces_of(entry.values, threads)};
            while (at.take(part, threads)) {
                entry.call(entry, part);
                at.finish(part);
            }
            wait_for(at.finished, part.of);
            if (times == nullptr || thread != 0) continue;
            const Clock::time_point ended = Clock::now();
            times[kernel] += std::chrono::duration_cast<std::chrono::nanoseconds>(ended - begun).count();
            begun = ended;
        }
    });
}

}  // namespace outcrop
