"""Reuse of KV blocks between prompts that begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.engine.block_pool import BlockPool


@dataclass(frozen=True, slots=True)
class BlockKey:
    """What a cached block is the KV of: its tokens, after everything its parent stands for.

    parent is the unique number of the parent block's cache entry, or the tenant's salt for a first
    block. Entries are compared by parent and tokens, not by hash alone, so a hash collision can cost
    time but never serves another prompt's KV; a parent's number is never reused.
    """

    parent: int | str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    key: BlockKey
    block: int


class PrefixCache:
    """Full blocks of tokens, found again by chained keys.

    Holds no references: a cached block may be held by requests or lie free in the pool, which calls
    `forget` when it hands the block out for something else.
    """

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self.pool = pool
        self.block_size = block_size
        self._by_key: dict[BlockKey, _Entry] = {}
        self._by_block: dict[int, _Entry] = {}
        self._next_number = 0
        pool.on_evict = self.forget

    def __len__(self) -> int:
        return len(self._by_key)

    def is_cached(self, block: int) -> bool:
        return block in self._by_block

    def match(self, tokens: Sequence[int], salt: str) -> list[int]:
        """The cached blocks that `tokens` begins with, not yet held. The last token is never covered: its
        hidden state is what the next token is sampled from, so it is always computed again."""
        blocks: list[int] = []
        parent: int | str = salt
        for start in range(0, len(tokens) - self.block_size, self.block_size):
            entry = self._by_key.get(BlockKey(parent, tuple(tokens[start : start + self.block_size])))
            if entry is None:
                break
            blocks.append(entry.block)
            parent = entry.number
        return blocks

    def register(self, parent: int | str, tokens: Sequence[int], block: int) -> int:
        """Remember that `block` holds the KV of `tokens` after `parent`; returns the number to pass as the
        parent of the next block. If an equal entry exists it stays, and `block` remains private."""
        key = BlockKey(parent, tuple(tokens))
        if (entry := self._by_key.get(key)) is None:
            entry = _Entry(self._next_number, key, block)
            self._next_number += 1
            self._by_key[key] = self._by_block[block] = entry
        return entry.number

    def holds(self, parent: int | str, tokens: Sequence[int]) -> bool:
        """Whether there is a block of these tokens after `parent`."""
        return BlockKey(parent, tuple(tokens)) in self._by_key

    def number(self, block: int) -> int:
        """The entry number of a cached block."""
        return self._by_block[block].number

    def forget(self, block: int) -> None:
        """The pool is about to hand this block out for other contents."""
        if (entry := self._by_block.pop(block, None)) is not None:
            del self._by_key[entry.key]
