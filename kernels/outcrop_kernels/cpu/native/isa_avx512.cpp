#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "team.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#include <immintrin.h>

#define OUTCROP_LANES 16
#define OUTCROP_ISA_NAME "avx512"

namespace outcrop {
namespace avx512 {
#include "isa.inc"
}  // namespace avx512

const Kernels& avx512_kernels() { return avx512::kTable; }
}  // namespace outcrop
#else
namespace outcrop {
const Kernels& avx512_kernels() { return portable_kernels(); }
}  // namespace outcrop
#endif
