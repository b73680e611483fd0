"""Few tokens on all partitions: what the kernels around matrix products share.

A token's H numbers are cut into `shares` equal ones, each on a partition of its own, so that 32 tokens use
all 128. Of a tensor [T, H] in HBM that is a view: [T * shares, H / shares].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.language import nisa, nl

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

PARTITIONS = 128
BANK = 512
"""Numbers of float32 in one bank of PSUM."""
TOGETHER = 4
"""Transposed tiles that are copied in one instruction."""


def shares_of(tokens: int, width: int) -> int:
    """Partitions of a token: a power of two whose shares of the width are whole tiles of 128."""
    shares = 1
    while shares * 2 * tokens <= PARTITIONS and width % (shares * 2 * PARTITIONS) == 0:
        shares = shares * 2
    return shares


def load(x: Tensor, first: int, count: int, shares: int) -> Tensor:
    """Tokens of x [T, H] from HBM: [count * shares, H / shares] in SBUF."""
    tokens, width = x.shape
    part = nl.ndarray((count * shares, width // shares), dtype=x.dtype, buffer=nl.sbuf)
    rows = x.reshape((tokens * shares, width // shares))
    nisa.dma_copy(dst=part, src=rows[first * shares : (first + count) * shares, :])
    return part


def store(out: Tensor, part: Tensor, first: int, shares: int) -> None:
    """`load` the other way round."""
    tokens, width = out.shape
    rows = out.reshape((tokens * shares, width // shares))
    nisa.dma_copy(dst=rows[first * shares : first * shares + part.shape[0], :], src=part)


def turned(x: Tensor, shares: int) -> Tensor:
    """x [T * shares, H / shares] with H along the partitions: [128, H / shares / 128, T, shares] in SBUF,
    whose column [:, j, :, s] is the tile of numbers s * H / shares + 128 * j of every token."""
    parts, width = x.shape
    tiles = width // PARTITIONS
    made = nl.ndarray((PARTITIONS, tiles, parts), dtype=x.dtype, buffer=nl.sbuf)
    for start in range(0, tiles, TOGETHER):
        some = min(TOGETHER, tiles - start)
        turn = nl.ndarray((PARTITIONS, some, parts), dtype=x.dtype, buffer=nl.psum)
        for tile in range(some):
            begin = (start + tile) * PARTITIONS
            nisa.nc_transpose(dst=turn[:, tile, :], data=x[:, begin : begin + PARTITIONS])
        nisa.tensor_copy(dst=made[:, start : start + some, :], src=turn)
    return made.reshape((PARTITIONS, tiles, parts // shares, shares))


def sums(parts: int, width: int, count: int) -> list[Tensor]:
    """Places in PSUM for `count` sums [parts, width] float32, as many as fit in a bank together:
    [parts, some, width] each."""
    each = BANK // width
    banks = []
    for start in range(0, count, each):
        some = nl.ndarray((parts, min(each, count - start), width), dtype=nl.float32, buffer=nl.psum)
        banks.append(some)
    return banks
