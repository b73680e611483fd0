#include "quantised.h"
#include "team.h"

#define OUTCROP_LANES 4

namespace outcrop {
namespace quantised_portable {
#include "quantised.inc"
}  // namespace quantised_portable

const QuantisedKernels& portable_quantised() { return quantised_portable::kTable; }
}  // namespace outcrop
