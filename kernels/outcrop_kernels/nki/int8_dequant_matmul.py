"""A product with a matrix of 8-bit codes, which are what HBM is read for.

Tiling. As the first product of `swiglu_mlp`: turned tokens move, tiles of 128 inputs by 128 outputs are
stationary, sums are [128 outputs, T]. The codes become bfloat16 in SBUF (float32 where the tokens are), which
holds them exactly; the scalar engine takes five ninths of each tile and the vector engine the rest, since
neither keeps up with DMA alone. The scales, a number to a partition in this layout, come last, in float32,
and the result is turned back.

SBUF, per partition: turned tokens, H * T / 128 numbers; a tile of codes, 2 KiB, and what becomes of it, 4
KiB; scales; the result. PSUM: sums, at most 3 banks; the result turned. Moved: the codes once, a scale of 4
bytes for each output, tokens and result once: half of what bfloat16 takes. Matrix work: for 16 KiB of codes
32 cycles to load and 64 to move, 0.034 us where DMA takes 0.06. Casts: 128 numbers for 128 outputs, on two
engines: 0.051 us.

Counted for 32 tokens of 1792 by 4096: 7.7 MB, vector engine 28.8 us and DMA 28.4 decide together, at 99 % of
the DMA engines' 272 GB/s and 66 % of the HBM's 410; scalar 23, tensor 12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.tokens import BANK, PARTITIONS, TOGETHER, load, shares_of, sums, turned

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

BLOCK = 16
"""Tiles of 128 outputs whose sums are in PSUM at a time, at most."""


@nki.jit
def int8_dequant_matmul(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """x [T, H], T at most 128, times codes int8 [H, F], inputs first, by scale float32 [F, 1]: [T, F]."""
    tokens, width = x.shape
    features = codes.shape[1]
    out = nl.ndarray((tokens, features), dtype=x.dtype, buffer=nl.shared_hbm)
    shares = shares_of(tokens, width)
    inputs = turned(load(x, 0, tokens, shares), shares)
    block = min(BLOCK, 3 * (BANK // tokens))
    for first in range(0, features // PARTITIONS, block):
        count = min(block, features // PARTITIONS - first)
        banks = _sums(inputs, codes, first, count)
        _out(out, banks, scale, first, count)
    return out


def _sums(inputs: Tensor, codes: Tensor, first: int, count: int) -> list[Tensor]:
    """Sums of the tiles of outputs first .. first + count, without their scales."""
    _, tiles, tokens, shares = inputs.shape
    banks, each = sums(PARTITIONS, tokens, count), BANK // tokens
    columns = count * PARTITIONS
    # As the engines' clocks are, 1.4 to 1.12 GHz.
    middle = columns * 5 // 9
    for share in range(shares):
        for tile in range(tiles):
            row, begin = (share * tiles + tile) * PARTITIONS, first * PARTITIONS
            stored = nl.ndarray((PARTITIONS, columns), dtype=nl.int8, buffer=nl.sbuf)
            nisa.dma_copy(dst=stored, src=codes[row : row + PARTITIONS, begin : begin + columns])
            wide = nl.ndarray((PARTITIONS, columns), dtype=inputs.dtype, buffer=nl.sbuf)
            nisa.activation(dst=wide[:, 0:middle], op=nl.copy, data=stored[:, 0:middle])
            nisa.tensor_copy(
                dst=wide[:, middle:columns], src=stored[:, middle:columns], engine=nisa.engine.vector
            )
            for part in range(count):
                nisa.nc_matmul(
                    dst=banks[part // each][:, part % each, :],
                    stationary=wide[:, part * PARTITIONS : (part + 1) * PARTITIONS],
                    moving=inputs[:, tile, :, share],
                )
    return banks


def _out(out: Tensor, banks: list[Tensor], scale: Tensor, first: int, count: int) -> None:
    """The tiles by their scales, turned back, into HBM."""
    tokens, features = out.shape
    each = BANK // tokens
    given = nl.ndarray((count, PARTITIONS), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(
        dst=given, src=scale.reshape((features // PARTITIONS, PARTITIONS))[first : first + count, :]
    )
    turn = nl.ndarray((PARTITIONS, count), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_transpose(dst=turn, data=given)
    scales = nl.ndarray((PARTITIONS, count), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=scales, src=turn)
    result = nl.ndarray((tokens, count, PARTITIONS), dtype=out.dtype, buffer=nl.sbuf)
    for start in range(0, count, TOGETHER):
        some = min(TOGETHER, count - start)
        back = nl.ndarray((tokens, some, PARTITIONS), dtype=out.dtype, buffer=nl.psum)
        for tile in range(some):
            part = start + tile
            scaled = nl.ndarray((PARTITIONS, tokens), dtype=out.dtype, buffer=nl.sbuf)
            nisa.tensor_scalar(
                dst=scaled,
                data=banks[part // each][:, part % each, :],
                op0=nl.multiply,
                operand0=scales[:, part : part + 1],
            )
            nisa.nc_transpose(dst=back[:, tile, :], data=scaled)
        nisa.tensor_copy(dst=result[:, start : start + some, :], src=back)
    nisa.dma_copy(
        dst=out[:, first * PARTITIONS : (first + count) * PARTITIONS],
        src=result.reshape((tokens, count * PARTITIONS)),
    )


CONTRACT = Contract(
    arguments=(
        Argument("x", "T I"),
        Argument("codes", "I F", "int8"),
        Argument("scale", "F 1", "float32"),
    ),
    results=(Argument("out", "T F"),),
    limits=(
        Limit("T at most 128", lambda size: size["T"] <= 128),
        Limit("I a multiple of 128", lambda size: size["I"] % 128 == 0),
        Limit("F a multiple of 128", lambda size: size["F"] % 128 == 0),
    ),
    tolerance={"bfloat16": 2**-8, "float32": 2e-6},
)
