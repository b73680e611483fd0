// A resident team of threads that runs one job at a time, each thread its part of it.
#pragma once

#include <atomic>

namespace outcrop {

using Job = void (*)(const void* context, int part, int parts);

// Starts `threads` - 1 workers (the caller is the other one) in place of those that run now.
void start_team(int threads);

int team_size();

// Runs job(context, part, parts) for every part and returns when all are done. Callers take turns.
void run_team(Job job, const void* context);

template <class Body>
void parallel(const Body& body) {
    run_team([](const void* context, int part, int parts) { (*static_cast<const Body*>(context))(part, parts); },
             &body);
}

// Where a thread waits for the others. Whoever makes `value` the wanted one notifies all.
void wait_for(const std::atomic<int>& value, int wanted);

// Pieces [first, last) of work that is cut into `of` pieces.
struct Part {
    int first, last, of;
};

// The share [first, last) of `count` items that falls to a part.
struct Share {
    long first, last;
    Share(long count, Part part) : first(count * part.first / part.of), last(count * part.last / part.of) {}
};

}  // namespace outcrop
