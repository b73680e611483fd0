"""Which shapes are compiled for the chip. Each costs minutes to compile and memory on every core, so there
are few of them; what lies between pads."""

from __future__ import annotations

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.plan.instructions import LIMIT, instructions
from outcrop_compile.tensor_parallel import Layout

_ROWS = (1, 4, 8, 16, 32)
_CONTEXTS = tuple(512 * 4**n for n in range(6))  # tokens; attention reads all of them, needed or not
_WIDTHS = (128, 512, 2048)
_SCORES = 512 << 20
"""Bytes of attention scores that a prefill step may make on a core. Longer prompts take several steps."""
_VERIFIED = 64
"""Tokens of the largest verify step. With more, it is no longer the reading of weights that takes time."""


def neuron_buckets(
    layout: Layout, *, max_rows: int, max_model_len: int, block_size: int, guesses: int = 0
) -> tuple[Bucket, ...]:
    """The table: for every kind of step all sizes x all lengths, so that whatever fits by size and by length
    fits. With blocks of a whole sequence there is but one length, which is slot mode."""
    lengths = sorted(
        {-(-tokens // block_size) for tokens in (*_below(_CONTEXTS, max_model_len), max_model_len)}
    )
    rows = [*_below(_ROWS, max_rows), max_rows]
    widths = [width for width in _WIDTHS if width <= max_model_len and _fits(layout, width, max_model_len)]
    sizes = [(StepKind.DECODE, each, 1) for each in rows]
    sizes += [(StepKind.PREFILL, 1, width) for width in widths or [min(_WIDTHS[0], max_model_len)]]
    if guesses:
        width = guesses + 1
        sizes += [(StepKind.VERIFY, each, width) for each in rows if each == 1 or each * width <= _VERIFIED]
    return tuple(
        Bucket(kind, each, width, blocks)
        for kind, each, width in sizes
        for blocks in lengths
        # A step never has more tokens than its row may have.
        if blocks == lengths[-1] or width <= blocks * block_size
    )


def _below(grid: tuple[int, ...], limit: int) -> list[int]:
    return [size for size in grid if size < limit]


def _fits(layout: Layout, width: int, length: int) -> bool:
    """Whether a prefill step of so many tokens can be compiled and run."""
    step = Bucket(StepKind.PREFILL, 1, width, 1)
    return 4 * layout.heads * width * length <= _SCORES and instructions(layout, step) <= LIMIT
