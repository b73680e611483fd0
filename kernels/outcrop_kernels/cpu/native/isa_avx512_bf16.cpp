#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "team.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

#define OUTCROP_LANES 16
#define OUTCROP_BFLOAT16
#define OUTCROP_ISA_NAME "avx512_bf16"

namespace outcrop {
namespace avx512_bf16 {
#include "isa.inc"
}  // namespace avx512_bf16

const Kernels& avx512_bf16_kernels() { return avx512_bf16::kTable; }
}  // namespace outcrop
#else
namespace outcrop {
const Kernels& avx512_bf16_kernels() { return portable_kernels(); }
}  // namespace outcrop
#endif
