"""GGUF blocks that are groups of integers with a scale: read as they are, without making numbers of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from gguf.constants import GGMLQuantizationType

from outcrop_compile.checkpoint.arrays import Array
from outcrop_kernels.quantised import GROUP, Quantised


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows of bytes to rows of a quantised matrix, whose `bits` and having minima are these."""

    read: Callable[[Array], Quantised[Array]]
    bits: Literal[4, 8]
    ranges: bool = False


def _q8_0(rows: Array) -> Quantised[Array]:
    blocks = rows.reshape(len(rows), -1, 2 + GROUP)
    codes = blocks[:, :, 2:].view(np.int8).reshape(len(rows), -1)
    return Quantised(codes, _floats(blocks, 0), None, 8)


def _q4_0(rows: Array) -> Quantised[Array]:
    blocks = rows.reshape(len(rows), -1, 2 + GROUP // 2)
    return Quantised(_nibbles(blocks[:, :, 2:]) - np.int8(8), _floats(blocks, 0), None, 4)


def _q4_1(rows: Array) -> Quantised[Array]:
    blocks = rows.reshape(len(rows), -1, 4 + GROUP // 2)
    return Quantised(_nibbles(blocks[:, :, 4:]), _floats(blocks, 0), _floats(blocks, 2), 4)


def _floats(blocks: Array, at: int) -> Array:
    """The float16 at these bytes of each block."""
    return np.ascontiguousarray(blocks[:, :, at : at + 2]).view("<f2")[:, :, 0].astype(np.float32)


def _nibbles(halves: Array) -> Array:
    """A block's first codes are the lower halves of its bytes, its last ones the upper halves."""
    return np.concatenate([halves & 15, halves >> 4], axis=2).view(np.int8).reshape(len(halves), -1)


GROUPS = {
    GGMLQuantizationType.Q8_0: Groups(_q8_0, 8),
    GGMLQuantizationType.Q4_0: Groups(_q4_0, 4),
    GGMLQuantizationType.Q4_1: Groups(_q4_1, 4, ranges=True),
}
