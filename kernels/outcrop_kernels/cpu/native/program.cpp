#include "program.h"

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

}  // namespace outcrop
