#include "program.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "team.h"

namespace outcrop {
namespace {

// A piece takes some microseconds at least, beside which the taking of it is nothing, and a kernel has no more of them
// than it takes to share it evenly.
constexpr long kPiece = 1 << 17;
constexpr int kPiecesOfThread = 8;

int pieces_of(long values, int threads) {
    return static_cast<int>(std::clamp<long>(values / kPiece, threads, kPiecesOfThread * threads));
}

// How far a kernel is. A cache line of its own, for threads are at different kernels for a moment.
struct alignas(64) Progress {
    std::atomic<int> taken{0}, finished{0};
};

}  // namespace

void Program::run(int64_t* times) const {
    using Clock = std::chrono::steady_clock;
    std::vector<Progress> progress(entries_.size());
    parallel([&](int part, int parts) {
        Clock::time_point begun = times != nullptr ? Clock::now() : Clock::time_point();
        for (long kernel = 0; kernel < size(); ++kernel) {
            const Entry& entry = entries_[kernel];
            Progress& at = progress[kernel];
            const int pieces = pieces_of(entry.values, parts);
            for (int piece; (piece = at.taken.fetch_add(1, std::memory_order_relaxed)) < pieces;) {
                entry.call(entry, piece, pieces);
                if (at.finished.fetch_add(1, std::memory_order_acq_rel) == pieces - 1) at.finished.notify_all();
            }
            wait_for(at.finished, pieces);
            if (times == nullptr || part != 0) continue;
            const Clock::time_point ended = Clock::now();
            times[kernel] += std::chrono::duration_cast<std::chrono::nanoseconds>(ended - begun).count();
            begun = ended;
        }
    });
}

}  // namespace outcrop
