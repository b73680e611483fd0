// What a processor can do at most: bytes read and multiply-adds a second, by all threads together.
// Built by limits.py with -march=native, so that vectors are as wide as the machine's.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <sys/mman.h>
#include <thread>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr std::size_t kVector = 64;
#else
constexpr std::size_t kVector = 32;
#endif
typedef std::uint64_t Words __attribute__((vector_size(kVector)));
typedef float Floats __attribute__((vector_size(kVector)));

constexpr int kChains = 12;  // independent sums: two multiply-adds a cycle, each four cycles long, and more

volatile std::uint64_t word_sink;
volatile float float_sink;

void read(const Words *from, std::size_t count) {
    Words sums[8] = {};
    for (std::size_t i = 0; i + 8 <= count; i += 8)
        for (int k = 0; k < 8; ++k) sums[k] ^= from[i + k];
    for (int k = 1; k < 8; ++k) sums[0] ^= sums[k];
    word_sink = sums[0][0];
}

void multiply_add(std::size_t rounds) {
    Floats sums[kChains], factor = {}, term = {};
    factor += 0.999f, term += 0.001f;
    for (auto &sum : sums) sum = term;
    for (std::size_t i = 0; i < rounds; ++i) {
        for (int k = 0; k < kChains; ++k) sums[k] = sums[k] * factor + term;
        asm volatile("" : "+x"(factor));  // or the compiler would shorten the loop
    }
    float total = 0;
    for (auto &sum : sums) total += sum[0];
    float_sink = total;
}

// The median of `repeats` times that all threads take for `work`, in seconds, after one that is not counted.
double median_seconds(int threads, int repeats, const std::function<void(int)> &work) {
    std::vector<double> times;
    auto begun = std::chrono::steady_clock::now();
    auto lap = [&]() noexcept {
        auto now = std::chrono::steady_clock::now();
        times.push_back(std::chrono::duration<double>(now - begun).count());
        begun = now;
    };
    std::barrier gate(threads, lap);
    auto run = [&](int index) {
        gate.arrive_and_wait();
        for (int r = 0; r <= repeats; ++r) work(index), gate.arrive_and_wait();
    };
    std::vector<std::thread> others;
    for (int index = 1; index < threads; ++index) others.emplace_back(run, index);
    run(0);
    for (auto &other : others) other.join();
    std::sort(times.begin() + 2, times.end());  // past the wait for all to begin, and the first time
    return times[2 + repeats / 2];
}

}  // namespace

// Bytes a second, reading `bytes` of memory in huge pages. The memory is kept for the next call.
extern "C" double read_bandwidth(int threads, std::size_t bytes, int repeats) {
    static char *memory = nullptr;
    static std::size_t held = 0;
    if (held != bytes) {
        if (memory) munmap(memory, held);
        void *mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) return 0;
        memory = static_cast<char *>(mapped), held = bytes;
        madvise(memory, bytes, MADV_HUGEPAGE);
        for (std::size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
    }
    std::size_t share = bytes / threads / sizeof(Words);
    double seconds = median_seconds(threads, repeats, [&](int index) {
        read(reinterpret_cast<const Words *>(memory) + index * share, share);
    });
    return static_cast<double>(bytes) / seconds;
}

// float32 multiply-adds a second, in registers.
extern "C" double multiply_add_peak(int threads, int repeats) {
    constexpr std::size_t kRounds = 4'000'000;
    double each = static_cast<double>(kRounds) * kChains * (kVector / sizeof(float));
    return threads * each / median_seconds(threads, repeats, [](int) { multiply_add(kRounds); });
}
