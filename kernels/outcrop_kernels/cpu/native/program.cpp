#include "program.h"

#include <chrono>

#include "team.h"

namespace outcrop {

void Program::run() const {
    Barrier barrier;
    parallel([&](int part, int parts) {
        for (const Entry& entry : entries_) {
            entry.call(entry, part, parts);
            barrier.wait(parts);
        }
    });
}

void Program::profile(int64_t* times) const {
    using Clock = std::chrono::steady_clock;
    Barrier barrier;
    parallel([&](int part, int parts) {
        Clock::time_point begun = Clock::now();
        for (long kernel = 0; kernel < size(); ++kernel) {
            entries_[kernel].call(entries_[kernel], part, parts);
            barrier.wait(parts);
            if (part != 0) continue;
            const Clock::time_point ended = Clock::now();
            times[kernel] += std::chrono::duration_cast<std::chrono::nanoseconds>(ended - begun).count();
            begun = ended;
        }
    });
}

}  // namespace outcrop
