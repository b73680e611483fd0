"""How much electricity tokens take: an estimate, and said to be one."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop.cost.throughput import Throughput
from outcrop_compile.instances import INSTANCES

CHIP_WATTS = 175.0
"""Of an Inferentia2 or Trainium1 chip at work. AWS publishes none: this is what third-party tables of carbon
take."""

PUE = 1.15
"""Power of a data centre for each watt of its machines: assumed."""

ASSUMPTION = (
    f"{CHIP_WATTS:.0f} W for each chip, as third-party carbon tables take it (AWS publishes none), in "
    f"proportion to utilisation; power usage effectiveness {PUE}; host, network and storage left out"
)


@dataclass(frozen=True, slots=True)
class Energy:
    """watts: of one instance's chips, cooling included. kwh_per_million: for a million output tokens, with
    the input tokens that belong to them."""

    watts: float
    kwh_per_million: float
    assumption: str


def estimate_energy(instance: str, throughput: Throughput | None, utilisation: float) -> Energy | None:
    """None where the instance's chips or its throughput are not known."""
    if throughput is None or instance not in INSTANCES:
        return None
    watts = INSTANCES[instance].chips * CHIP_WATTS * PUE
    hours = 1e6 / throughput.output_tokens_per_s / 3600
    # Watts and tokens are both in proportion to the utilisation, which cancels.
    return Energy(watts * utilisation, watts * hours / 1000, ASSUMPTION)
