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
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from outcrop_kernels.cpu.native.arena import Arena
from outcrop_kernels.cpu.native.library import library

_Array = npt.NDArray[Any]

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


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised tensor of float32 or int32; while recording, one whose address outlives it."""
    if _thread.arena is None:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(_thread.arena.floats(math.prod(shape))).view(dtype).view(shape)


class Recorded:
    """`function`, recorded once for each combination of argument shapes and options and replayed after that.

    function: tensors in, a tuple of float32 or int32 tensors out; made of native operations and views alone,
    with no decision that depends on values. Anything else would be left out of a replay: the first one is
    compared with the function itself, which must make the same when it is called again, and raises
    RuntimeError where they differ. A result is overwritten by the next call. Within another recording it is
    the function.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._arena = Arena(_ARENA_BYTES)
        self._programs: dict[tuple[Any, ...], _Program] = {}

    def __call__(self, *arguments: Tensor, **options: bool) -> tuple[Tensor, ...]:
        if _thread.arena is not None:
            return self._function(*arguments, **options)
        program = self._replayed(tuple(argument.numpy() for argument in arguments), options)
        return program.results

    def arrays(self, *arguments: _Array) -> tuple[_Array, ...]:
        """A call without torch, whose code is no longer in any cache after a step of a model has been
        through: to make a tensor then takes longer than many a kernel."""
        return self._replayed(arguments, {}).arrays

    def profile(self, *arguments: _Array, repeats: int = 1) -> dict[str, float]:
        """Seconds that each kernel takes in one call with such arguments, all its places in it together;
        the mean of `repeats` calls."""
        return self._replayed(arguments, {}).profile(repeats)

    def _replayed(self, arguments: tuple[_Array, ...], options: dict[str, bool]) -> _Program:
        key = (*[argument.shape for argument in arguments], *options.values())
        program = self._programs.get(key)
        if program is None:
            function = partial(self._function, **options)
            program = _Program(function, arguments, self._arena)
            if not self._programs:
                program.compare(function, arguments)
            self._programs[key] = program
        program.replay(arguments)
        return program


class _Program:
    """One recording, with the arrays that its arguments are copied to and its results found in, which are
    `arrays` and as tensors `results`."""

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], arguments: tuple[_Array, ...], arena: Arena
    ) -> None:
        # Zeros, not the arguments themselves: what depends on values then differs when it is compared.
        self._arguments = tuple(np.zeros_like(argument, order="C") for argument in arguments)
        with _recorded(arena) as handle:
            results = function(*map(torch.from_numpy, self._arguments))
        self._handle, self._replay = handle, library().outcrop_replay
        weakref.finalize(self, library().outcrop_free, handle)
        # The same memory without holding on to it: results are read before another program runs.
        self.results = tuple(_borrowed(result, arena) for result in results)
        self.arrays = tuple(result.numpy() for result in self.results)

    def replay(self, arguments: tuple[_Array, ...]) -> None:
        for target, source in zip(self._arguments, arguments, strict=True):
            target[...] = source
        self._replay(self._handle)

    def compare(self, function: Callable[..., tuple[Tensor, ...]], arguments: tuple[_Array, ...]) -> None:
        wanted = function(*map(torch.from_numpy, arguments))
        self.replay(arguments)
        for got, exact in zip(self.results, wanted, strict=True):
            if not torch.allclose(got, exact, rtol=0, atol=0, equal_nan=True):
                raise RuntimeError(
                    "a replay differs from the function it records, which computes something that is not an "
                    "operation of the registry"
                )

    def profile(self, repeats: int) -> dict[str, float]:
        native, seconds = library(), defaultdict[str, float](float)
        times = np.zeros(native.outcrop_size(self._handle), dtype=np.int64)
        for _ in range(repeats):
            native.outcrop_profile(self._handle, times.ctypes.data)
        for kernel, nanoseconds in enumerate(times.tolist()):
            seconds[native.outcrop_name(self._handle, kernel).decode()] += nanoseconds / 1e9 / repeats
        return dict(seconds)


def _borrowed(result: Tensor, arena: Arena) -> Tensor:
    numbers = torch.from_numpy(arena.borrow(result.data_ptr(), result.numel()))
    return numbers.view(result.dtype).view(result.shape)


@contextmanager
def _recorded(arena: Arena) -> Iterator[int]:
    handle: int = library().outcrop_record()
    _thread.arena = arena
    try:
        yield handle
    finally:
        _thread.arena = None
        library().outcrop_finish()
