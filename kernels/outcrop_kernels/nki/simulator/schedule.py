"""When each instruction would run, if the chip kept the kernel's order.

Every engine takes its instructions in program order; one starts when its engine is free, what it reads is
there and what it overwrites is no longer read. DMA is two queues, one each way, that share the bandwidth.
Buffers are as many as the kernel allocates, so loads run ahead of their use as far as they can.
Simplifications: a tensor is waited for whole, not by slices; the compiler may reorder and improve on it.
Not yet run on a device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outcrop_kernels.nki.simulator.cost import CLOCKS, DMA_START_SECONDS, PSUM_TURNS, DmaWork
from outcrop_kernels.nki.simulator.memory import Life, MemoryRegion

RESULT_CYCLES = 100
"""From an instruction's end to another's start that reads its result (architecture guide, vector engine)."""

DMA_QUEUES = ("load", "store")

_TURNS = {"vector": ("vector", "gpsimd"), "gpsimd": ("vector", "gpsimd")}
"""Vector engine and GpSimd cannot access SBUF at the same time."""

Touched = list[tuple[Life, bool]]
"""What an instruction reads (False) and writes (True)."""


def in_psum(touched: Touched) -> bool:
    return any(life.buffer is MemoryRegion.psum for life, _ in touched)


@dataclass(slots=True)
class Schedule:
    free: dict[str, float] = field(default_factory=dict)
    """When each engine has worked off what it was given."""
    moved: float = 0.0
    """Seconds of all DMA so far, at the full bandwidth."""
    end: float = 0.0

    def add(self, work: list[tuple[str, float]], touched: Touched) -> None:
        """One instruction: the seconds it takes of engines, one after another, and what it touches."""
        psum = in_psum(touched)
        for engine, seconds in work:
            turns = _TURNS.get(engine, (engine,))
            if psum and engine in PSUM_TURNS:
                turns = (*turns, "psum")
            ready = max((_wait(engine, life, wrote) for life, wrote in touched), default=0.0)
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
        for life, wrote in touched:
            if wrote:
                life.written, life.writer = max(life.written, done), engine
            elif end >= life.read:
                life.read, life.reader = end, engine


def _wait(engine: str, life: Life, wrote: bool) -> float:
    """Until when a tensor keeps an engine waiting. What an engine does to it itself is in order anyway."""
    if not wrote:
        return life.written
    before = 0.0 if life.writer == engine else life.written
    return before if life.reader == engine else max(before, life.read)


def dma_seconds(size: int, count: int) -> float:
    """Of `count` descriptors of `size` bytes."""
    one = DmaWork()
    one.descriptors[size] = count
    return one.seconds
