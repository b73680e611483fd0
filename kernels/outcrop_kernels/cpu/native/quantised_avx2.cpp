#include "quantised.h"
#include "team.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>

#define OUTCROP_LANES 8

namespace outcrop {
namespace quantised_avx2 {
#include "quantised.inc"
}  // namespace quantised_avx2

const QuantisedKernels& avx2_quantised() { return quantised_avx2::kTable; }
}  // namespace outcrop
#else
namespace outcrop {
const QuantisedKernels& avx2_quantised() { return portable_quantised(); }
}  // namespace outcrop
#endif
