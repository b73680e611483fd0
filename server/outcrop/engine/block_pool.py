"""Ownership of KV blocks: who holds which, which are free, which of the free ones still cache a prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence


class OutOfBlocksError(RuntimeError):
    """More blocks were asked for than are free; nothing was allocated."""


class BlockPool:
    """`num_blocks` KV blocks with reference counts.

    A block is held (count >= 1) or free, never both. A free block keeps its contents until it is handed
    out again, so the prefix cache may `share` it back to life; `on_evict` tells the cache when that
    chance is gone. Free blocks are reused least recently freed first, blocks without cached contents
    before all others.
    """

    def __init__(self, num_blocks: int, on_evict: Callable[[int], None] | None = None) -> None:
        self.num_blocks = num_blocks
        self.on_evict = on_evict
        self._counts = [0] * num_blocks
        # A stack, so that a lightly loaded server keeps touching the same pages of memory.
        self._blank = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        return len(self._blank) + len(self._cached)

    def count(self, block: int) -> int:
        """How many requests hold this block."""
        return self._counts[block]

    def allocate(self, count: int) -> list[int]:
        """Hand out `count` blocks, each held once. Raises OutOfBlocksError and changes nothing."""
        if count > self.num_free:
            raise OutOfBlocksError(f"{count} KV blocks asked for, {self.num_free} free")
        blocks = []
        for _ in range(count):
            if self._blank:
                block = self._blank.pop()
            else:
                block, _ = self._cached.popitem(last=False)
                if self.on_evict is not None:
                    self.on_evict(block)
            self._counts[block] = 1
            blocks.append(block)
        return blocks

    def share(self, block: int) -> None:
        """Add a holder to a block that is held, or free with cached contents."""
        if self._counts[block] == 0:
            del self._cached[block]
        self._counts[block] += 1

    def release(self, blocks: Sequence[int], is_cached: Callable[[int], bool] = lambda _: False) -> None:
        """Drop one holder of each block. Blocks are given in sequence order and freed tail first, so that
        eviction eats a cached prefix from its end."""
        counts = self._counts
        for block in reversed(blocks):
            left = counts[block] - 1
            if left < 0:
                raise ValueError(f"block {block} is released but nobody holds it")
            counts[block] = left
            if left == 0:
                if is_cached(block):
                    self._cached[block] = None
                else:
                    self._blank.append(block)
