"""What a kernel costs: counted work, and the time it would take by the published figures of NeuronCore-v2.

Estimates, not measurements: `seconds` is a floor, with every engine working through its instructions back
to back and all of them overlapping perfectly; `scheduled_seconds` lets them wait for each other. Not yet
run on a device.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

TENSOR_HZ = 2.8e9
VECTOR_HZ = 1.12e9
SCALAR_HZ = 1.4e9
GPSIMD_HZ = 1.4e9
"""AWS Neuron docs, nki/guides/architecture/trainium_inferentia2_arch.rst."""

DMA_BYTES_PER_SECOND = 272e9
"""16 engines of 17 B/ns (nki/deep-dives/nki-dma-bandwidth-guide.rst, TRN1)."""

HBM_BYTES_PER_SECOND = 410e9
"""Half of a chip's 820 GB/s."""

DMA_START_SECONDS = 1.3e-6
"""From a semaphore to a transfer's first byte (the same guide); others can hide it."""

SMALL_DESCRIPTOR = 512
"""Bytes that a DMA descriptor costs at least. An assumption: the bandwidth guide calls descriptors under
256 B overhead-bound and those from 2 KiB on near the peak, and gives no formula."""

ISSUE_CYCLES = 64
"""An instruction's least initiation interval (MIN_II in nki.api.shared, MM_INIT_LATENCY in the architecture
guide)."""

PSUM_TURNS = ("vector", "scalar")
"""These cannot access PSUM at the same time (architecture guide, data movement)."""

CLOCKS = {"tensor": TENSOR_HZ, "vector": VECTOR_HZ, "scalar": SCALAR_HZ, "gpsimd": GPSIMD_HZ}


@dataclass(slots=True)
class EngineWork:
    instructions: int = 0
    elements: int = 0
    """Per partition, since partitions are worked on side by side."""
    cycles: int = 0
    psum_cycles: int = 0
    """Of them: of instructions that access PSUM, where the vector and the scalar engine take turns."""


@dataclass(slots=True)
class DmaWork:
    transfers: int = 0
    hbm_read: int = 0
    """Bytes out of HBM."""
    hbm_written: int = 0
    on_chip: int = 0
    """Bytes between SBUF tensors."""
    descriptors: Counter[int] = field(default_factory=Counter)
    """How many contiguous pieces of each size in bytes."""
    dynamic: int = 0
    """Of the descriptors, those GpSimd makes while the kernel runs; its time for that is not estimated."""

    @property
    def bytes(self) -> int:
        return sum(size * count for size, count in self.descriptors.items())

    @property
    def seconds(self) -> float:
        spent = sum(max(size, SMALL_DESCRIPTOR) * count for size, count in self.descriptors.items())
        return spent / DMA_BYTES_PER_SECOND


@dataclass(slots=True)
class Report:
    """Of one run of a kernel."""

    target: str
    engines: dict[str, EngineWork] = field(default_factory=lambda: {name: EngineWork() for name in CLOCKS})
    dma: DmaWork = field(default_factory=DmaWork)
    macs: int = 0
    """Multiply-adds of matmuls, without transposes."""
    sbuf_peak: int = 0
    """Bytes per partition in use at once, in program order."""
    psum_peak: int = 0
    """Banks in use at once."""
    scheduled_seconds: float = 0.0
    """With every engine in program order, waiting for its operands: see the module `schedule`."""

    @property
    def instructions(self) -> int:
        return sum(work.instructions for work in self.engines.values()) + self.dma.transfers

    def engine_seconds(self) -> dict[str, float]:
        """Busy time of each engine, of those that take turns (vector engine and GpSimd in SBUF, vector and
        scalar engine in PSUM), of the DMA engines together, and of HBM."""
        busy = {name: work.cycles / CLOCKS[name] for name, work in self.engines.items()}
        # Vector engine and GpSimd cannot access SBUF at the same time (architecture guide).
        busy["vector+gpsimd"] = busy["vector"] + busy["gpsimd"]
        busy["psum"] = sum(self.engines[name].psum_cycles / CLOCKS[name] for name in PSUM_TURNS)
        busy["dma"] = self.dma.seconds
        busy["hbm"] = (self.dma.hbm_read + self.dma.hbm_written) / HBM_BYTES_PER_SECOND
        return busy

    @property
    def bound(self) -> str:
        """What takes longest."""
        busy = self.engine_seconds()
        return max(busy, key=lambda name: busy[name])

    @property
    def seconds(self) -> float:
        """With all engines overlapping perfectly."""
        return max(self.engine_seconds().values())

    @property
    def dma_share(self) -> float:
        """Of the DMA engines' peak, while the kernel runs."""
        return self.dma.bytes / DMA_BYTES_PER_SECOND / self.seconds if self.seconds else 0.0

    @property
    def hbm_share(self) -> float:
        return self.engine_seconds()["hbm"] / self.seconds if self.seconds else 0.0
