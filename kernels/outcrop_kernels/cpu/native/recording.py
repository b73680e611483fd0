"""Recording: a function of tensors, run once for each shape of its arguments, then replayed natively.

What a CUDA graph is on a GPU. A replay is one call into the library; Python, torch and the waking of
threads are paid for once a step and no longer once an operation.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from outcrop_kernels.cpu.native.arena import Arena
from outcrop_kernels.cpu.native.library import library

_ARENA_BYTES = 1 << 30
"""Of address space: far more than the largest step of any model needs at once."""


class _Thread(threading.local):
    """arena: of the recording in progress on this thread, if there is one."""

    arena: Arena | None = None


_thread = _Thread()


def contiguous(x: Tensor) -> Tensor:
    """The tensor with its values side by side. Raises RuntimeError where that takes a copy while recording,
    which a replay would not make."""
    if _thread.arena is not None and not x.is_contiguous():
        raise RuntimeError(f"a tensor of shape {tuple(x.shape)} would have to be copied to be recorded")
    return x.contiguous()


def empty(*shape: int) -> Tensor:
    """An uninitialised float32 tensor; while recording, one whose address outlives it."""
    if _thread.arena is None:
        return torch.empty(shape)
    return torch.from_numpy(_thread.arena.floats(math.prod(shape))).view(shape)


class Recorded:
    """`function`, recorded once for each combination of argument shapes and replayed after that.

    function: tensors in, a tuple of float32 tensors out; made of native operations and views alone, with
    no decision that depends on values. Anything else would be left out of a replay: the first one is
    compared with the function itself, and raises RuntimeError where they differ. A result is overwritten
    by the next call.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._arena = Arena(_ARENA_BYTES)
        self._programs: dict[tuple[torch.Size, ...], _Program] = {}

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        key = tuple(argument.shape for argument in arguments)
        program = self._programs.get(key)
        if program is None:
            program = _Program(self._function, arguments, self._arena)
            if not self._programs:
                self._compare(program, arguments)
            self._programs[key] = program
        return program(*arguments)

    def profile(self, *arguments: Tensor, repeats: int = 1) -> dict[str, float]:
        """Seconds that each kernel takes in one call with such arguments, all its places in it together;
        the mean of `repeats` calls."""
        self(*arguments)
        program = self._programs[tuple(argument.shape for argument in arguments)]
        return program.profile(repeats)

    def _compare(self, program: _Program, arguments: tuple[Tensor, ...]) -> None:
        wanted = self._function(*arguments)
        for got, exact in zip(program(*arguments), wanted, strict=True):
            if not torch.allclose(got, exact, rtol=0, atol=0, equal_nan=True):
                raise RuntimeError(
                    "a replay differs from the function it records, which computes something that is not an "
                    "operation of the registry"
                )


class _Program:
    """One recording, with the tensors that its arguments are copied to and its results found in."""

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], arguments: tuple[Tensor, ...], arena: Arena
    ) -> None:
        # Zeros, not the arguments themselves: what depends on values then differs when it is compared.
        self._arguments = tuple(torch.zeros_like(argument) for argument in arguments)
        with _recorded(arena) as handle:
            results = function(*self._arguments)
        self._handle = handle
        weakref.finalize(self, library().outcrop_free, handle)
        # The same memory without holding on to it: results are read before another program runs.
        self._results = tuple(
            torch.from_numpy(arena.borrow(result.data_ptr(), result.numel())).view(result.shape)
            for result in results
        )

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        for target, source in zip(self._arguments, arguments, strict=True):
            target.copy_(source)
        library().outcrop_replay(self._handle)
        return self._results

    def profile(self, repeats: int) -> dict[str, float]:
        native, seconds = library(), defaultdict[str, float](float)
        times = np.zeros(native.outcrop_size(self._handle), dtype=np.int64)
        for _ in range(repeats):
            native.outcrop_profile(self._handle, times.ctypes.data)
        for kernel, nanoseconds in enumerate(times.tolist()):
            seconds[native.outcrop_name(self._handle, kernel).decode()] += nanoseconds / 1e9 / repeats
        return dict(seconds)


@contextmanager
def _recorded(arena: Arena) -> Iterator[int]:
    handle: int = library().outcrop_record()
    _thread.arena = arena
    try:
        yield handle
    finally:
        _thread.arena = None
        library().outcrop_finish()
