// What Python calls: pointers and sizes in, nothing allocated, nothing thrown.
#include <cstring>

#include "kernels.h"
#include "program.h"
#include "quantised.h"
#include "team.h"

namespace outcrop {
namespace {

const Kernels* chosen = &portable_kernels();
const QuantisedKernels* quantised = &portable_quantised();

thread_local Program* recording = nullptr;

// Below this many values, waking the team costs more than it saves.
constexpr long kWorthSharing = 1 << 14;

template <class Work>
void run(const char* name, void (*kernel)(const Work&, Part), const Work& work, long values) {
    if (recording != nullptr)
        recording->append(name, kernel, work, values);
    else if (values < kWorthSharing)
        kernel(work, {0, 1, 1});
    else
        parallel([&](int part, int parts) { kernel(work, {part, part + 1, parts}); });
}

bool choose(const char* name) {
#if defined(__x86_64__)
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
    const bool has_bf16 = has_vnni && __builtin_cpu_supports("avx512bf16");
#else
    const bool has_avx2 = false, has_avx512 = false, has_vnni = false, has_bf16 = false;
#endif
    const bool any = std::strcmp(name, "auto") == 0;
    const struct {
        bool supported;
        const Kernels* kernels;
        const QuantisedKernels* quantised;
    } best_first[] = {{has_bf16, &avx512_bf16_kernels(), &vnni_quantised()},
                      {has_avx512, &avx512_kernels(), has_vnni ? &vnni_quantised() : &avx512_quantised()},
                      {has_avx2, &avx2_kernels(), &avx2_quantised()},
                      {true, &portable_kernels(), &portable_quantised()},
                      {true, &portable_bf16_kernels(), &portable_quantised()}};
    for (const auto& candidate : best_first)
        if (candidate.supported && (any || std::strcmp(name, candidate.kernels->name) == 0)) {
            chosen = candidate.kernels;
            quantised = candidate.quantised;
            return true;
        }
    return false;
}

}  // namespace
}  // namespace outcrop

using namespace outcrop;

#define EXPORTED __attribute__((visibility("default")))

extern "C" {

// Starts `threads` threads with the kernels of `isa` ("auto": the best that this processor has). 0 if it has
// not that one.
EXPORTED int outcrop_start(const char* isa, int threads) {
    if (!choose(isa)) return 0;
    start_team(threads);
    return 1;
}

EXPORTED const char* outcrop_isa() { return chosen->name; }

// source [features, depth], float32 or bfloat16 as `format` says, into panels (see kernels.h).
EXPORTED void outcrop_pack(const void* source, void* packed, long features, long depth, int format) {
    parallel([&](int part, int parts) {
        const Share panels(features / kPanel, {part, part + 1, parts});
        for (long panel = panels.first; panel < panels.last; ++panel)
            for (int feature = 0; feature < kPanel; ++feature) {
                const long row = (panel * kPanel + feature) * depth;
                if (static_cast<Format>(format) == Format::float32) {
                    const float* from = static_cast<const float*>(source) + row;
                    float* to = static_cast<float*>(packed) + panel * kPanel * depth + feature;
                    for (long k = 0; k < depth; ++k) to[k * kPanel] = from[k];
                } else {
                    const uint16_t* from = static_cast<const uint16_t*>(source) + row;
                    uint16_t* to = static_cast<uint16_t*>(packed) + panel * kPanel * depth + feature * 2;
                    for (long k = 0; k < depth; ++k) to[k / 2 * kPanel * 2 + k % 2] = from[k];
                }
            }
    });
}

// Programs: between `record` and `finish`, calls of the functions below are written down and not run.
EXPORTED Program* outcrop_record() { return recording = new Program; }

EXPORTED void outcrop_finish() { recording = nullptr; }

EXPORTED void outcrop_replay(const Program* program) { program->run(); }

EXPORTED long outcrop_size(const Program* program) { return program->size(); }

EXPORTED const char* outcrop_name(const Program* program, long kernel) { return program->name(kernel); }

EXPORTED void outcrop_profile(const Program* program, int64_t* times) { program->profile(times); }

EXPORTED void outcrop_free(Program* program) { delete program; }

// Whether activations are narrowed before they are multiplied with weights in bfloat16.
EXPORTED int outcrop_narrows() { return chosen->narrow != nullptr; }

EXPORTED void outcrop_narrow(const float* x, uint16_t* y, long count) {
    run("narrow", chosen->narrow, Narrow{x, y, count}, count);
}

EXPORTED void outcrop_linear(const float* x, const void* weight, float* y, long rows, long features, long depth,
                             int format) {
    run("linear", chosen->linear, Linear{x, {weight, features, depth, static_cast<Format>(format)}, y, rows},
        rows * features * depth);
}

EXPORTED void outcrop_quantise(const float* x, int16_t* codes, float* scales, int32_t* sums, long rows, long depth) {
    run("quantise", quantised->quantise, Quantise{x, codes, scales, sums, rows, depth}, rows * depth);
}

EXPORTED void outcrop_linear_quantised(const int16_t* codes, const float* scales, const int32_t* sums,
                                       const uint8_t* weight, float* y, long rows, long features, long depth,
                                       int format) {
    run("linear", quantised->linear,
        QuantisedLinear{codes, scales, sums, weight, y, rows, features, depth, static_cast<Codes>(format)},
        rows * features * depth);
}

// How many stretches `outcrop_attention` takes, and so how much room for what they find.
EXPORTED long outcrop_stretches(long width, long heads, long kv_heads, long dim, long positions) {
    return stretches_of(width * (heads / kv_heads), dim, positions);
}

EXPORTED void outcrop_attention(const float* query, const void* keys, const void* values, const int32_t* block_tables,
                                const int32_t* positions, float* found, float* out, long rows, long width,
                                long heads, long kv_heads, long dim, long table_width, long stretches,
                                long block_size, long per_block, long per_token, long per_head, int format) {
    const Pages pages{block_size, per_block, per_token, per_head, static_cast<Format>(format)};
    const Attention job{query,    keys, values,      block_tables, positions, out,  rows, width, heads,
                        kv_heads, dim,  table_width, pages,        stretches, found};
    run("attention", chosen->attention, job, rows * width * heads * dim * block_size * table_width);
    if (stretches > 0) run("attention", chosen->attention_sum, job, rows * width * heads * dim * stretches);
}

// x + update into total, where there is an update.
EXPORTED void outcrop_rms_norm(const float* x, const float* update, const float* weight, float* total, float* y,
                               long tokens, long features, float eps) {
    run("rms_norm", chosen->rms_norm, RmsNorm{x, update, weight, total, y, tokens, features, eps}, tokens * features);
}

EXPORTED void outcrop_rope_cache(const float* made, const float* cos, const float* sin, const int32_t* slots,
                                 float* query, void* keys, void* values, long tokens, long heads, long kv_heads,
                                 long dim, long block_size, long per_block, long per_token, long per_head,
                                 int format) {
    const Pages pages{block_size, per_block, per_token, per_head, static_cast<Format>(format)};
    run("rope_cache", chosen->rope_cache,
        RopeCache{made, cos, sin, slots, query, keys, values, tokens, heads, kv_heads, dim, pages},
        tokens * (heads + 2 * kv_heads) * dim);
}

EXPORTED void outcrop_swiglu(const float* gate_up, float* y, long tokens, long features) {
    run("swiglu", chosen->swiglu, SwiGlu{gate_up, y, tokens, features}, tokens * features);
}

EXPORTED void outcrop_take(const void* table, const int32_t* indices, float* y, long count, long features,
                           long apart, int format) {
    run("take", chosen->take, Take{table, indices, y, count, features, apart, static_cast<Format>(format)},
        count * features);
}

EXPORTED void outcrop_step_tokens(const int32_t* token_ids, const int32_t* use_last, const int32_t* kept,
                                  const int32_t* slots, int32_t* tokens, long rows, long width) {
    run("step_tokens", chosen->step_tokens, StepTokens{token_ids, use_last, kept, slots, tokens, rows, width},
        rows * width);
}

EXPORTED void outcrop_keep_tokens(int32_t* kept, const int32_t* slots, const int32_t* sampled, const int32_t* tokens,
                                  long rows) {
    run("keep_tokens", chosen->keep_tokens, KeepTokens{kept, slots, sampled, tokens, rows}, rows);
}

EXPORTED void outcrop_add(const float* a, const float* b, float* y, long count) {
    run("add", chosen->add, Add{a, b, y, count}, count);
}

EXPORTED void outcrop_peak(const float* x, float* y, long rows, long features) {
    run("peak", chosen->peak, Peak{x, y, rows, features}, rows * features);
}

EXPORTED void outcrop_both_finite(const float* a, const float* b, int32_t* y, long count) {
    run("both_finite", chosen->both_finite, BothFinite{a, b, y, count}, count);
}

EXPORTED void outcrop_sample(const float* logits, const float* sampling, const float* draws, int32_t* tokens,
                             long rows, long vocab) {
    run("sample", chosen->sample, Sample{logits, sampling, draws, tokens, rows, vocab}, rows * vocab);
}
}
