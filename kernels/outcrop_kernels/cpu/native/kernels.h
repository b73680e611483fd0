// The kernels of one instruction set, as a table that is filled once for each and chosen from at run time.
//
// All activations are float32, row-major. Each kernel does a part of its work, so that a team of threads can share it.
// Shapes use the names of outcrop_kernels.reference.
#pragma once

#include <cstdint>

#include "team.h"

namespace outcrop {

enum class Format : int { float32 = 0, bfloat16 = 1 };

constexpr int kPanel = 16;  // output features that a panel of packed weights holds

// A weight matrix [features, depth] in panels of kPanel features.
//   float32:  [features / 16][depth][16]
//   bfloat16: [features / 16][depth / 2][16][2], so that one 32-bit lane holds two steps of the depth
struct Weight {
    const void* data;
    long features, depth;
    Format format;
};

// Activations to bfloat16, for the instruction set whose products with such weights take two steps of the depth at
// once.
struct Narrow {
    const float* x;  // [count]
    uint16_t* y;
    long count;
};

struct Linear {
    const float* x;  // [rows, depth]; of narrowed activations, two in each
    Weight weight;
    float* y;  // [rows, features]
    long rows;
};

// Where the KV of a token and head lies in a pool [blocks, block_size, kv_heads, dim]: elements from one block, token
// or head to the next. Numbers of one head lie side by side.
struct Pages {
    long block_size, block, token, head;
    Format format;

    long at(long slot, long kv_head) const {
        return slot / block_size * block + slot % block_size * token + kv_head * head;
    }
};

struct Attention {
    const float* query;            // [rows, width, heads, dim]
    const void *keys, *values;     // pools
    const int32_t* block_tables;   // [rows, table_width]
    const int32_t* positions;      // [rows, width]
    float* out;                    // as query
    long rows, width, heads, kv_heads, dim, table_width;
    Pages pages;     // of keys and of values
    long stretches;  // that a row's positions are cut into at most; 0 for many queries, which are not
    float* found;    // [rows, width, heads, stretches, dim + 2]: what each query found in each
};

// Positions that are attended to by one thread without a break: some microseconds' work.
constexpr long kStretch = 128;
// However long a row is: what each adds has to be kept, and put together.
constexpr long kMostStretches = 32;

// The stretches of an attention over so many positions. A tile of few queries would spend its time on laying out keys,
// and one of many has enough to do for all threads.
inline long stretches_of(long queries_of_kv_head, long dim, long positions) {
    if (queries_of_kv_head >= 12 && dim % kPanel == 0) return 0;
    const long count = (positions + kStretch - 1) / kStretch;
    return count < kMostStretches ? count : kMostStretches;
}

struct RmsNorm {
    const float *x, *update;  // [tokens, features]; null: nothing is added to x
    const float* weight;
    float *total, *y;  // x + update, and the norm of that
    long tokens, features;
    float eps;
};

// Turns queries and keys of what a matrix made, and puts keys and values into their pools.
struct RopeCache {
    const float* made;        // [tokens, heads + 2 kv_heads, dim]
    const float *cos, *sin;   // [tokens, dim / 2]
    const int32_t* slots;     // block * block_size + offset
    float* query;             // [tokens, heads, dim]
    void *keys, *values;      // pools
    long tokens, heads, kv_heads, dim;
    Pages pages;  // of keys and of values
};

struct SwiGlu {
    const float* gate_up;  // [tokens, 2 * features]
    float* y;              // [tokens, features]
    long tokens, features;
};

struct Take {
    const void* table;  // [?, features], of which row indices[i] + i * apart becomes row i of y
    const int32_t* indices;
    float* y;  // [count, features]
    long count, features, apart;
    Format format;  // of the table
};

struct StepTokens {
    const int32_t *token_ids, *use_last;  // [rows, width]
    const int32_t *kept, *slots;          // [?], [rows]
    int32_t* tokens;                      // [rows, width]
    long rows, width;
};

struct KeepTokens {
    int32_t* kept;                            // [?]
    const int32_t *slots, *sampled, *tokens;  // [rows]
    long rows;
};

struct Add {
    const float *a, *b;
    float* y;
    long count;
};

struct Peak {
    const float* x;  // [rows, features]
    float* y;        // [rows]
    long rows, features;
};

struct BothFinite {
    const float *a, *b;  // [count]
    int32_t* y;
    long count;
};

struct Sample {
    const float *logits, *sampling, *draws;  // [rows, vocab], [rows, 4], [rows]
    int32_t* tokens;                         // [rows]
    long rows, vocab;
};

struct Kernels {
    const char* name;
    void (*narrow)(const Narrow&, Part part);  // null: its products take activations in float32
    void (*linear)(const Linear&, Part part);
    void (*attention)(const Attention&, Part part);
    void (*attention_sum)(const Attention&, Part part);
    void (*rms_norm)(const RmsNorm&, Part part);
    void (*rope_cache)(const RopeCache&, Part part);
    void (*swiglu)(const SwiGlu&, Part part);
    void (*take)(const Take&, Part part);
    void (*step_tokens)(const StepTokens&, Part part);
    void (*keep_tokens)(const KeepTokens&, Part part);
    void (*add)(const Add&, Part part);
    void (*peak)(const Peak&, Part part);
    void (*both_finite)(const BothFinite&, Part part);
    void (*sample)(const Sample&, Part part);
};

const Kernels& portable_kernels();
const Kernels& portable_bf16_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();

}  // namespace outcrop
