// Matrix products of 16-bit activations with 8-bit and 4-bit weights, for each instruction set (see quantised.inc).
//
// The numbers are those of outcrop_kernels.reference.linear_quantised: sums of integer products over kGroup
// inputs are exact, so a row's result does not depend on the rows beside it.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace outcrop {

constexpr int kGroup = 32;  // inputs that share an activation scale, and a weight scale where weights have groups
constexpr float kLargestCode = 32767.0f;  // of activations
constexpr float kLeastPeak = 1e-30f;  // groups of smaller activations are zeros

// In panels of kPanel features, and within those for each group of the depth:
//   int8_channels: codes; after all groups float32 scales [16]
//   int8_groups:   codes, then float16 scales [16]
//   int4_groups:   codes plus 8, then float16 scales [16]
//   int4_ranges:   codes, then float16 scales [16] and minima [16]
// Codes are bytes [kGroup / 2][16][2]. Of 4 bits, those of features 8..15 are the upper halves of the bytes
// of features 0..7: [kGroup / 2][8][2].
enum class Codes : int { int8_channels = 0, int8_groups = 1, int4_groups = 2, int4_ranges = 3 };

struct Quantise {
    const float* x;  // [rows, depth]
    int16_t* codes;  // [rows, depth]
    float* scales;   // [rows, depth / kGroup], NaN where a value of the group is not finite
    int32_t* sums;   // [rows, depth / kGroup] of the codes
    long rows, depth;
};

struct QuantisedLinear {
    const int16_t* codes;  // these three as Quantise leaves them
    const float* scales;
    const int32_t* sums;
    const uint8_t* weight;
    float* y;  // [rows, features]
    long rows, features, depth;
    Codes format;
};

struct QuantisedKernels {
    void (*quantise)(const Quantise&, Part part);
    void (*linear)(const QuantisedLinear&, Part part);
};

const QuantisedKernels& portable_quantised();
const QuantisedKernels& avx2_quantised();
const QuantisedKernels& avx512_quantised();
const QuantisedKernels& vnni_quantised();

}  // namespace outcrop
