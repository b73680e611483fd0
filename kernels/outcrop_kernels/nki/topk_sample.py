"""The largest logits of each row with their tokens, and the largest alone: what sampling needs of a
vocabulary.

Tiling. A row is cut into pieces, a piece to a partition, so that up to 128 partitions work where a row to a
partition would leave 96 to 127 of them idle. Each piece gives its own largest, 8 at a time (max8,
nc_find_index8, nc_match_replace8: three passes over the piece), as many as are wanted of the whole row; then
those of all pieces of a row come together on one partition, through HBM, and give the row's in the same way.
How many pieces is weighed from the sizes (`pieces_of`): more of them make the first step cheaper and the
second dearer.

SBUF, per partition: a piece (V / pieces * 4 bytes, at most 64 KiB), and candidates and tokens of all pieces
of a row (at most 128 KiB). PSUM: nothing. Moved: the logits once, and 16 bytes for each candidate of a piece.
Matrix work: none. Vector engine: 3 * (k / 8) * (V / pieces + pieces * k) cycles.

Counted for 32 rows of 16,032 logits and k 256 (Llama 3.1 8B at tp 8): the vector engine decides with 430 us,
the logits' 2 MiB are 10 us of DMA, 2 % of its 272 GB/s and 1 % of the HBM's 410. The largest alone takes 9
us. What neuronx-cc's own top-k takes is not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.tokens import PARTITIONS

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

WIDEST = 16384
"""Numbers that max8 takes of a partition."""
EIGHT = 8
NOTHING = -3.0e38
"""In the place of what was found already; below any logit."""


@nki.jit
def topk(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of logits [R, V] float32, in descending order: values float32 and tokens int32,
    both [R, count]. Of a row with NaN, any tokens of the vocabulary."""
    rows, width = logits.shape
    pieces = pieces_of(rows, width, count)
    size = width // pieces
    kept, places = _of_pieces(logits, pieces, min(size, count))
    values = nl.ndarray((rows, count), dtype=nl.float32, buffer=nl.shared_hbm)
    tokens = nl.ndarray((rows, count), dtype=nl.int32, buffer=nl.shared_hbm)
    for start in range(0, rows, PARTITIONS):
        parts = min(PARTITIONS, rows - start)
        together = nl.ndarray((parts, kept.shape[1]), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=together, src=kept[start : start + parts, :])
        known = _tokens(places, start, parts, pieces, size)
        best, at = _largest(together, count)
        chosen = nl.ndarray(at.shape, dtype=nl.uint32, buffer=nl.sbuf)
        nisa.nc_n_gather(dst=chosen, data=known, indices=at)
        nisa.dma_copy(dst=values[start : start + parts, :], src=best[:, 0:count])
        signed = nl.ndarray(at.shape, dtype=nl.int32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=signed, src=chosen)
        nisa.dma_copy(dst=tokens[start : start + parts, :], src=signed[:, 0:count])
    return values, tokens


@nki.jit
def largest(logits: Tensor) -> Tensor:
    """The token of the largest of logits [R, V] float32, the first of equals: int32 [R]."""
    rows, width = logits.shape
    pieces = pieces_of(rows, width, 1)
    size = width // pieces
    kept, places = _of_pieces(logits, pieces, 1)
    tokens = nl.ndarray((rows,), dtype=nl.int32, buffer=nl.shared_hbm)
    for start in range(0, rows, PARTITIONS):
        parts = min(PARTITIONS, rows - start)
        together = nl.ndarray((parts, pieces), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=together, src=kept[start : start + parts, :])
        peak = nl.ndarray((parts, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=peak, op=nl.maximum, data=together, axis=(1,))
        below = nl.ndarray((parts, pieces), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=below, data=together, op0=nl.not_equal, operand0=peak)
        # Tokens are exact in float32; the width is more than any of them, and stands for pieces without the
        # peak.
        first = nl.ndarray((parts, pieces), dtype=nl.float32, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=first,
            data=below,
            op0=nl.multiply,
            operand0=float(width),
            op1=nl.maximum,
            operand1=_tokens(places, start, parts, pieces, size),
        )
        token = nl.ndarray((parts, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=token, op=nl.minimum, data=first, axis=(1,))
        signed = nl.ndarray((parts, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=signed, data=token, op0=nl.minimum, operand0=float(width - 1))
        nisa.dma_copy(dst=tokens.reshape((rows, 1))[start : start + parts, :], src=signed)
    return tokens


def pieces_of(rows: int, width: int, count: int) -> int:
    """Equal pieces of a row for which the vector engine has least to do; 0 where no number of them fits."""
    best, least = 0, 0
    rounds = (count + EIGHT - 1) // EIGHT
    for pieces in range(1, PARTITIONS + 1):
        size = width // pieces
        found = min(size, count)
        fits = width % pieces == 0 and size >= EIGHT and size <= WIDEST
        if fits and pieces * found >= EIGHT and pieces * found <= WIDEST:
            tiles = (rows * pieces + PARTITIONS - 1) // PARTITIONS
            again = (rows + PARTITIONS - 1) // PARTITIONS * rounds * pieces * found
            work = tiles * ((found + EIGHT - 1) // EIGHT) * size + again
            if best == 0 or work < least:
                best, least = pieces, work
    return best


def _of_pieces(logits: Tensor, pieces: int, found: int) -> tuple[Tensor, Tensor]:
    """The `found` largest of each piece and their places in it, in HBM: float32 and uint32, both
    [R, pieces * found]."""
    rows, width = logits.shape
    size = width // pieces
    kept = nl.ndarray((rows, pieces * found), dtype=nl.float32, buffer=nl.private_hbm)
    places = nl.ndarray((rows, pieces * found), dtype=nl.uint32, buffer=nl.private_hbm)
    for start in range(0, rows * pieces, PARTITIONS):
        parts = min(PARTITIONS, rows * pieces - start)
        piece = nl.ndarray((parts, size), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=piece, src=logits.reshape((rows * pieces, size))[start : start + parts, :])
        best, at = _largest(piece, found)
        nisa.dma_copy(
            dst=kept.reshape((rows * pieces, found))[start : start + parts, :], src=best[:, 0:found]
        )
        nisa.dma_copy(
            dst=places.reshape((rows * pieces, found))[start : start + parts, :], src=at[:, 0:found]
        )
    return kept, places


def _largest(piece: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each partition and their places, a multiple of 8 of them. The piece is used up."""
    parts, size = piece.shape
    rounds = (count + EIGHT - 1) // EIGHT
    best = nl.ndarray((parts, rounds * EIGHT), dtype=nl.float32, buffer=nl.sbuf)
    at = nl.ndarray((parts, rounds * EIGHT), dtype=nl.uint32, buffer=nl.sbuf)
    for turn in range(rounds):
        low, high = turn * EIGHT, (turn + 1) * EIGHT
        nisa.max8(dst=best[:, low:high], src=piece)
        nisa.nc_find_index8(dst=at[:, low:high], data=piece, vals=best[:, low:high])
        if turn + 1 < rounds:
            nisa.nc_match_replace8(dst=piece, data=piece, vals=best[:, low:high], imm=NOTHING)
    # What is not found, as in a row with NaN, has no place; an index out of bounds would fail the step.
    last = nl.ndarray((parts, rounds * EIGHT), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.memset(last, value=size - 1)
    inside = nl.ndarray((parts, rounds * EIGHT), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=inside, data1=at, data2=last, op=nl.minimum)
    return best, inside


def _tokens(places: Tensor, start: int, parts: int, pieces: int, size: int) -> Tensor:
    """Places in pieces as tokens of the row: uint32 [parts, pieces * found]."""
    width = places.shape[1]
    near = nl.ndarray((parts, width), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.dma_copy(dst=near, src=places[start : start + parts, :])
    begin = nl.ndarray((parts, width), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.iota(begin, pattern=[[size, pieces], [0, width // pieces]], offset=0, channel_multiplier=0)
    known = nl.ndarray((parts, width), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=known, data1=near, data2=begin, op=nl.add)
    return known


def _fits(size: Mapping[str, int], count: int) -> bool:
    return pieces_of(size["R"], size["V"], count) > 0


TOPK = Contract(
    arguments=(Argument("logits", "R V", "float32"),),
    results=(Argument("values", "R C", "float32"), Argument("tokens", "R C", "int32")),
    limits=(Limit("a V in equal pieces of 8 to 16,384", lambda size: _fits(size, size["C"])),),
    tolerance={"float32": 0.0},
)
LARGEST = Contract(
    arguments=(Argument("logits", "R V", "float32"),),
    results=(Argument("tokens", "R", "int32"),),
    limits=(Limit("a V in equal pieces of 8 to 16,384", lambda size: _fits(size, 1)),),
    tolerance={"float32": 0.0},
)
