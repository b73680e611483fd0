"""The machines that have NeuronCore-v2, as data.

Sizes: about-neuron/arch/neuron-hardware/{inf2,trn1}-arch.rst in aws-neuron/aws-neuron-sdk, commit
81ce03ae261e. Its bandwidths are taken as GB/s, as AWS's product pages have them. Tensor-parallel degrees:
those that the runtime supports (archive/transformers-neuronx/transformers-neuronx-developer-guide.rst: 1, 2,
8, 32 on Trn1; 1, 2, 4, 8, 24 on Inf2), and 16 on Trn1, of whose torus 1, 4, 8 or 16 chips can be had together
(deploy/infrastructure/scheduler.rst).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import pairwise

CORES_PER_CHIP = 2
HBM_PER_CORE = 16 << 30  # bytes
HBM_BANDWIDTH = 410e9  # bytes a second and core: half of a chip's 820 GB/s
DMA_BANDWIDTH = 272e9
"""Bytes a second and core that 16 DMA engines move: nki/deep-dives/nki-dma-bandwidth-guide.rst of the SDK."""
PEAK_FLOPS = 95e12  # a second and core, in bfloat16; a quarter of it in float32


class Link(enum.StrEnum):
    """How the chips of an instance are connected."""

    NONE = "one chip"
    RING = "ring"
    TORUS = "2D torus"


@dataclass(frozen=True, slots=True)
class Instance:
    """host_gib: memory of the host. link_bandwidth: bytes a second and chip. network_gbps: at most. degrees:
    NeuronCores that can share a model."""

    name: str
    chips: int
    vcpus: int
    host_gib: int
    link: Link
    link_bandwidth: float
    network_gbps: float
    degrees: tuple[int, ...]

    @property
    def cores(self) -> int:
        return self.chips * CORES_PER_CHIP

    @property
    def hbm_gib(self) -> int:
        return self.cores * HBM_PER_CORE >> 30


_ONE_CHIP = (1, 2)
_TORUS = (1, 2, 8, 16, 32)

INSTANCES = {
    instance.name: instance
    for instance in (
        # Sizes and capability grow down the list, and so does the price within a family.
        Instance("inf2.xlarge", 1, 4, 16, Link.NONE, 0, 15, _ONE_CHIP),
        Instance("trn1.2xlarge", 1, 8, 32, Link.NONE, 0, 12.5, _ONE_CHIP),
        Instance("inf2.8xlarge", 1, 32, 128, Link.NONE, 0, 25, _ONE_CHIP),
        Instance("inf2.24xlarge", 6, 96, 384, Link.RING, 192e9, 50, (1, 2, 4, 8)),
        Instance("inf2.48xlarge", 12, 192, 768, Link.RING, 192e9, 100, (1, 2, 4, 8, 24)),
        Instance("trn1.32xlarge", 16, 128, 512, Link.TORUS, 384e9, 800, _TORUS),
        Instance("trn1n.32xlarge", 16, 128, 512, Link.TORUS, 768e9, 1600, _TORUS),
    )
}


def collective_floor(tp: int) -> float:
    """Seconds that a step takes for its collectives at least, however many they are.

    Measured on trn1 for 2, 8, 16 and 32 ranks (0.15, 2.45, 3.76 and 5.1 ms an execution; notes of
    https://github.com/foxl-ai/kiln); between those it is interpolated. On Inf2's ring it is taken to be the
    same. Ours is not yet run on a device.
    """
    measured = ((1, 0.0), (2, 0.15e-3), (8, 2.45e-3), (16, 3.76e-3), (32, 5.1e-3))
    for (fewer, low), (more, high) in pairwise(measured):
        if tp <= more:
            return low + (high - low) * (tp - fewer) / (more - fewer)
    return measured[-1][1]
