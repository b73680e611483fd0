#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "team.h"

// What avx512_bf16 does, without the instruction: for tests of its way through the weights on other processors.
#define OUTCROP_LANES 4
#define OUTCROP_BFLOAT16
#define OUTCROP_ISA_NAME "portable_bf16"

namespace outcrop {
namespace portable_bf16 {
#include "isa.inc"
}  // namespace portable_bf16

const Kernels& portable_bf16_kernels() { return portable_bf16::kTable; }
}  // namespace outcrop
