#include "quantised.h"
#include "team.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#include <immintrin.h>

#define OUTCROP_LANES 16

namespace outcrop {
namespace quantised_avx512 {
#include "quantised.inc"
}  // namespace quantised_avx512

const QuantisedKernels& avx512_quantised() { return quantised_avx512::kTable; }
}  // namespace outcrop
#else
namespace outcrop {
const QuantisedKernels& avx512_quantised() { return portable_quantised(); }
}  // namespace outcrop
#endif
