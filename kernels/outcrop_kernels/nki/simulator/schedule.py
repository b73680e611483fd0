"""When each instruction would run, if the chip kept the kernel's order.

Every engine takes its instructions in program order; one starts when its engine is free, what it reads is
there and what it overwrites is no longer read. DMA is two queues, one each way, that share the bandwidth.
Buffers are as many as the kernel allocates, so loads run ahead of their use as far as they can.
Simplifications: a tensor is waited for whole, not by slices; the compiler may reorder and improve on it.
Not yet run on a device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outcrop_kernels.nki.simulator.cost import CLOCKS, DMA_START_SECONDS, DmaWork
from outcrop_kernels.nki.simulator.memory import Storage

RESULT_CYCLES = 100
"""From an instruction's end to another's start that reads its result (architecture guide, vector engine)."""

DMA_QUEUES = ("load", "store")

_TURNS = {"vector": ("vector", "gpsimd"), "gpsimd": ("vector", "gpsimd")}
"""Vector engine and GpSimd cannot access SBUF at the same time."""


@dataclass(slots=True)
class Times:
    """Of one tensor."""

    written: float = 0.0
    """When the last result is in it."""
    writer: str = ""
    read: float = 0.0
    """When its last reader is done."""
    reader: str = ""


@dataclass(slots=True)
class Schedule:
    free: dict[str, float] = field(default_factory=dict)
    """When each engine has worked off what it was given."""
    tensors: dict[int, Times] = field(default_factory=dict)
    moved: float = 0.0
    """Seconds of all DMA so far, at the full bandwidth."""
    end: float = 0.0

    def add(self, work: list[tuple[str, float]], touched: list[tuple[Storage, bool]]) -> None:
        """One instruction: the seconds it takes of engines, one after another, and what it reads (False) and
        writes (True)."""
        for engine, seconds in work:
            turns = _TURNS.get(engine, (engine,))
            ready = max((self._wait(engine, storage, wrote) for storage, wrote in touched), default=0.0)
            if engine in DMA_QUEUES:
                ready += DMA_START_SECONDS
                self.moved += seconds
            end = max(ready, *(self.free.get(one, 0.0) for one in turns)) + seconds
            if engine in DMA_QUEUES:
                end = max(end, self.moved)
            for one in turns:
                self.free[one] = end
            self.end = max(self.end, end)
        engine, end = work[-1][0], self.free[work[-1][0]]
        done = end + (RESULT_CYCLES / CLOCKS[engine] if engine in CLOCKS else 0.0)
        for storage, wrote in touched:
            times = self.tensors.setdefault(id(storage), Times())
            if wrote:
                times.written, times.writer = max(times.written, done), engine
            elif end >= times.read:
                times.read, times.reader = end, engine

    def _wait(self, engine: str, storage: Storage, wrote: bool) -> float:
        """Until when a tensor keeps an engine waiting. An engine's own writes follow one another anyway."""
        times = self.tensors.get(id(storage))
        if times is None:
            return 0.0
        if not wrote:
            return times.written
        before = 0.0 if times.writer == engine else times.written
        return before if times.reader == engine else max(before, times.read)


def dma_seconds(size: int, count: int) -> float:
    """Of `count` descriptors of `size` bytes."""
    one = DmaWork()
    one.descriptors[size] = count
    return one.seconds
