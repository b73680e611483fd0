"""Names for the beginnings of prompts, as the prefix cache tells them apart."""

from __future__ import annotations

from collections.abc import Sequence


def prefix_keys(tokens: Sequence[int], salt: str, block_size: int, known: Sequence[int] = ()) -> list[int]:
    """One 64-bit key for each full block of `tokens`, of the block's tokens and of all before it, under the
    tenant's salt: what `PrefixCache` compares in full, chained as there. known: the keys of the first blocks,
    which are left out of the result. Good within this process. Two prompts with equal keys would only be
    sent to the same replica, whose cache compares tokens."""
    key = known[-1] if known else hash(salt)
    keys = []
    for start in range(len(known) * block_size, len(tokens) - block_size + 1, block_size):
        key = hash((key, *tokens[start : start + block_size]))
        keys.append(key)
    return keys
