#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "team.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include <immintrin.h>

#define OUTCROP_LANES 8
#define OUTCROP_ISA_NAME "avx2"

namespace outcrop {
namespace avx2 {
#include "isa.inc"
}  // namespace avx2

const Kernels& avx2_kernels() { return avx2::kTable; }
}  // namespace outcrop
#else
namespace outcrop {
const Kernels& avx2_kernels() { return portable_kernels(); }
}  // namespace outcrop
#endif
