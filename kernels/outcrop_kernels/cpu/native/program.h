// A recorded sequence of kernels, with all their pointers and sizes, that is run again in one call: what a graph is
// on a GPU. The threads go through it side by side, each taking pieces of the kernel until none are left, fewer and
// fewer at a time: a thread that is slow, or whose core something else has, holds the others up by little.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "team.h"

namespace outcrop {

class Program {
  public:
    // values: how much work it is, in numbers that are computed with.
    template <class Work>
    void append(const char* name, void (*kernel)(const Work&, Part), const Work& work, long values) {
        static_assert(std::is_trivially_copyable_v<Work> && sizeof(Work) <= sizeof(Entry::work));
        Entry entry;
        entry.call = [](const Entry& self, Part part) {
            reinterpret_cast<void (*)(const Work&, Part)>(self.kernel)(*reinterpret_cast<const Work*>(self.work), part);
        };
        entry.name = name;
        entry.values = values;
        entry.kernel = reinterpret_cast<void (*)()>(kernel);
        std::memcpy(entry.work, &work, sizeof(Work));
        entries_.push_back(entry);
    }

    // Runs every kernel in order, on the team.
    void run() const { run(nullptr); }

    // Runs them all and adds the nanoseconds that each took to times[kernel]. What is measured includes the wait
    // for the last piece.
    void profile(int64_t* times) const { run(times); }

    long size() const { return static_cast<long>(entries_.size()); }

    const char* name(long kernel) const { return entries_[kernel].name; }

  private:
    void run(int64_t* times) const;

    struct Entry {
        void (*call)(const Entry&, Part part);
        void (*kernel)();
        const char* name;
        long values;
        alignas(8) char work[160];
    };
    std::vector<Entry> entries_;
};

}  // namespace outcrop
