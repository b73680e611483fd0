"""Memory that many recorded programs share: they never run at the same time."""

from __future__ import annotations

import mmap
import weakref
from bisect import insort

import numpy as np
import numpy.typing as npt

_ALIGNMENT = 64
"""Bytes: a cache line."""


class Arena:
    """Hands out parts of one stretch of memory, lowest address first, and takes them back when the last
    reference to them is gone. The memory stays where it is as long as the arena lives, so an address that
    was handed out is good for ever; only pages that are written take up memory.
    """

    def __init__(self, size: int) -> None:
        """`size` in bytes: what all parts alive at once may take."""
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes = np.frombuffer(self._memory, dtype=np.uint8)
        self._free = [(0, size)]  # start and end of each gap, in order

    def floats(self, count: int) -> npt.NDArray[np.float32]:
        """Room for `count` float32. Raises MemoryError when no gap is large enough."""
        size = -(-count * 4 // _ALIGNMENT) * _ALIGNMENT
        fitting = (index for index, (start, end) in enumerate(self._free) if end - start >= size)
        index = next(fitting, None)
        if index is None:
            raise MemoryError(f"no room for {count} floats in an arena of {len(self._bytes)} bytes")
        start, end = self._free.pop(index)
        if end - start > size:
            self._free.insert(index, (start + size, end))
        part = self._at(start, count)
        weakref.finalize(part, self._give_back, start, start + size)
        return part

    def borrow(self, address: int, count: int) -> npt.NDArray[np.float32]:
        """Another look at memory that was handed out, which does not keep it from being handed out again.
        Raises ValueError for memory from elsewhere."""
        start = address - self._bytes.ctypes.data
        if not 0 <= start <= len(self._bytes) - count * 4:
            raise ValueError("this memory is not of the arena")
        return self._at(start, count)

    def _at(self, start: int, count: int) -> npt.NDArray[np.float32]:
        return np.frombuffer(memoryview(self._memory)[start : start + count * 4], dtype=np.float32)

    def _give_back(self, start: int, end: int) -> None:
        insort(self._free, (start, end))
        merged = [self._free[0]]
        for gap in self._free[1:]:
            if gap[0] == merged[-1][1]:
                merged[-1] = (merged[-1][0], gap[1])
            else:
                merged.append(gap)
        self._free = merged
