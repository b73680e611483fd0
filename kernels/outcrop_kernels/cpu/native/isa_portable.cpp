#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "team.h"

#define OUTCROP_LANES 4
#define OUTCROP_ISA_NAME "portable"

namespace outcrop {
namespace portable {
#include "isa.inc"
}  // namespace portable

const Kernels& portable_kernels() { return portable::kTable; }
}  // namespace outcrop
