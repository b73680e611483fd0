"""The simulated core during one run: its allocations, its clock, its counters."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial, wraps
from math import prod
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import dtypes, memory
from outcrop_kernels.nki.simulator.cost import CLOCKS, ISSUE_CYCLES, PSUM_TURNS, Report
from outcrop_kernels.nki.simulator.dtypes import DType
from outcrop_kernels.nki.simulator.memory import Life, MemoryRegion, Storage, Tensor, dense
from outcrop_kernels.nki.simulator.rules import Place, at, here, refuse
from outcrop_kernels.nki.simulator.schedule import Schedule, Touched, in_psum

MAX_INSTRUCTIONS = 5_000_000


@dataclass(frozen=True, slots=True)
class Issued:
    """An instruction that waits for its loop's end."""

    call: Callable[[], None]
    place: Place


@dataclass(frozen=True, slots=True)
class Loop:
    """An nl.affine_range loop, and what its iterations issued."""

    place: Place
    iterations: list[list[Issued | Loop]]


Order = Callable[[Loop], list[list["Issued | Loop"]]]
"""A loop's iterations in the order in which they are to run."""


@dataclass(slots=True)
class Machine:
    """One NeuronCore-v2 while one kernel runs on it."""

    report: Report
    indirect_dma: bool
    order: Order | None = None
    """Of the iterations of nl.affine_range loops; None runs every instruction as it is issued."""
    clock: int = 0
    """Instructions so far."""
    lives: list[Life] = field(default_factory=list)
    """Of all tensors on chip."""
    loops: set[Place] = field(default_factory=set)
    """Where the kernel has affine_range loops of more than one iteration."""
    sums: NDArray[np.float32] = field(default_factory=lambda: np.zeros(memory.PARTITIONS, dtype=np.float32))
    """The scalar engine's accumulators, one per partition (reduce_regs)."""
    schedule: Schedule = field(default_factory=Schedule)
    spent: list[tuple[str, float]] = field(default_factory=list)
    """Seconds of engines that the present instruction takes."""
    log: Touched = field(default_factory=list)
    waiting: list[Issued | Loop] | None = None
    """What the present iteration of a loop has issued, where another order is wanted."""
    ended: bool = False

    def allocate(self, shape: Any, dtype: DType, buffer: MemoryRegion, name: str = "") -> Tensor:
        sizes = tuple(memory.integer(size, "a shape") for size in shape)
        if not dtypes.known(dtype):
            refuse("dtype", f"{dtype!r} is not a type of NeuronCore-v2 that the simulator knows")
        if not sizes or min(sizes) < 1:
            refuse("view", f"a tensor of shape {list(sizes)} is allocated")
        if buffer in memory.ON_CHIP:
            self._check_on_chip(sizes, dtype, buffer)
        storage = self.own(Storage(sizes, dtype, buffer, name))
        if buffer in memory.ON_CHIP:
            self.lives.append(storage.life)
        return Tensor(storage, sizes, dense(sizes))

    def own(self, storage: Storage) -> Storage:
        storage.log = self.log
        return storage

    def _check_on_chip(self, sizes: tuple[int, ...], dtype: DType, buffer: MemoryRegion) -> None:
        held = prod(sizes[1:]) * dtypes.width(dtype)
        if sizes[0] > memory.PARTITIONS:
            refuse("partitions", f"a tensor of shape {list(sizes)} has {sizes[0]} partitions")
        if len(sizes) < 2:
            refuse("index", f"an on-chip tensor of shape {list(sizes)} has no free dimension")
        if buffer is MemoryRegion.psum and held > memory.PSUM_BANK_BYTES:
            refuse("psum-bank", f"a PSUM tile of shape {list(sizes)} {dtype} has {held} bytes per partition")
        if buffer is MemoryRegion.sbuf and held > memory.SBUF_BYTES:
            refuse("sbuf-budget", f"a tensor of shape {list(sizes)} {dtype} has {held} bytes per partition")

    def tick(self) -> int:
        """One more instruction; its number."""
        self.clock += 1
        if self.clock > MAX_INSTRUCTIONS:
            refuse("instructions", f"instruction {self.clock}")
        return self.clock

    def work(self, engine: str, elements: int, cycles: int) -> None:
        done = self.report.engines[engine]
        done.instructions += 1
        done.elements += elements
        done.cycles += max(ISSUE_CYCLES, cycles)
        self.spent.append((engine, max(ISSUE_CYCLES, cycles) / CLOCKS[engine]))

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around one instruction."""
        self.spent.clear()
        self.log.clear()
        turns = [self.report.engines[name] for name in PSUM_TURNS]
        before = [work.cycles for work in turns]
        yield
        self.schedule.add(self.spent, self.log)
        if in_psum(self.log):
            for work, cycles in zip(turns, before, strict=True):
                work.psum_cycles += work.cycles - cycles

    def iterations(self, values: list[int]) -> Iterator[int]:
        """The values in order, since Python around the instructions sees them so; where another order is
        wanted, the instructions wait for the end of the outermost loop, and come in that order."""
        loop, outer = Loop(here(), []), self.waiting
        if len(values) > 1:
            self.loops.add(loop.place)
        if self.order is None:
            yield from values
            return
        try:
            for value in values:
                self.waiting = []
                loop.iterations.append(self.waiting)
                yield value
        except GeneratorExit:  # The kernel left the loop early, or failed.
            if self.ended:
                return
        self.waiting = outer
        if outer is not None:
            outer.append(loop)
        else:
            self._replay([loop])

    def _replay(self, items: list[Issued | Loop]) -> None:
        assert self.order is not None
        for item in items:
            if isinstance(item, Loop):
                for iteration in self.order(item):
                    self._replay(iteration)
            else:
                with at(item.place):
                    item.call()


def reordered(seed: int, only: Place | None = None) -> Order:
    """Another order for every loop, or for the one at `only`. Seed 0 turns it round, by which every two of
    its iterations change places, as they may not in a shuffle of a few; other seeds shuffle."""
    dice = random.Random(seed)

    def order(loop: Loop) -> list[list[Issued | Loop]]:
        iterations = list(loop.iterations)
        if only not in (None, loop.place):
            return iterations
        if seed == 0:
            iterations.reverse()
        else:
            dice.shuffle(iterations)
        return iterations

    return order


_running: ContextVar[Machine | None] = ContextVar("nki_simulator", default=None)


def current() -> Machine:
    """The machine that the kernel calling this runs on.

    Raises:
        RuntimeError: nothing is being simulated.
    """
    machine = _running.get()
    if machine is None:
        raise RuntimeError(
            "NKI instructions run inside of a kernel: call "
            "outcrop_kernels.nki.simulator.simulate(kernel, ...)"
        )
    return machine


@contextmanager
def running(machine: Machine) -> Iterator[Machine]:
    token = _running.set(machine)
    try:
        yield machine
    finally:
        machine.ended = True
        _running.reset(token)


_Arguments = ParamSpec("_Arguments")


def instruction(function: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Makes a function an instruction of nki.isa, which runs where it is issued or waits for its loop.

    Raises:
        Refused: from the instruction, for arguments that it does not have.
    """

    @wraps(function)
    def issue(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        machine = current()
        if machine.waiting is not None:
            machine.waiting.append(Issued(partial(function, *arguments, **named), here()))
            return
        try:
            with machine.timed():
                function(*arguments, **named)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # From within.
            refuse("subset", str(error))

    return issue
