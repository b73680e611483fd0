#include "quantised.h"
#include "team.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#include <immintrin.h>

#define OUTCROP_LANES 16
#define OUTCROP_VNNI

namespace outcrop {
namespace quantised_vnni {
#include "quantised.inc"
}  // namespace quantised_vnni

const QuantisedKernels& vnni_quantised() { return quantised_vnni::kTable; }
}  // namespace outcrop
#else
namespace outcrop {
const QuantisedKernels& vnni_quantised() { return portable_quantised(); }
}  // namespace outcrop
#endif
