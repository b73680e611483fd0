"""Rotary embedding of queries or keys.

Tiling. A token, or an equal share of its heads where there are few tokens, to a partition: 32 tokens of 32
heads are 128 partitions of 8 heads. Both halves of every head are turned against each other in one
instruction for all heads, with the token's cosines and sines read again for each head in place.

SBUF, per partition: input, output, two products in float32 and cos and sin: 12 bytes a number, at most 48 KiB
for 32 heads of 128. PSUM: nothing. Moved: x twice, cos and sin once for each share of heads. Matrix work:
none. Vector engine: six instructions of two operands, 6 * D * heads / S cycles for 128 / S tokens.

Counted for 32 tokens of 4 heads of 128 (Llama 3.1 8B at tp 8): DMA decides with 1.0 us, since its pieces are
of 256 bytes, vector 0.7: 50 % of the DMA engines' 272 GB/s, 33 % of the HBM's 410.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.tokens import PARTITIONS

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor


@nki.jit
def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [T, heads, D] by cos and sin float32 [T, D / 2] of each token, halves rotated against each other:
    [T, heads, D]."""
    tokens, heads, dim = x.shape
    shares = shares_of(tokens, heads)
    each = heads // shares
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    given = x.reshape((tokens * shares, each * dim))
    turned = out.reshape((tokens * shares, each * dim))
    step = PARTITIONS // shares
    for start in nl.affine_range((tokens + step - 1) // step):
        first = start * step
        count = min(step, tokens - first)
        parts = count * shares
        rows = nl.ndarray((parts, each * dim), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=rows, src=given[first * shares : first * shares + parts, :])
        angles = (_angles(cos, first, count, shares), _angles(sin, first, count, shares))
        result = nl.ndarray((parts, each, dim), dtype=x.dtype, buffer=nl.sbuf)
        rotate(result, rows.reshape((parts, each, dim)), angles[0], angles[1])
        nisa.dma_copy(
            dst=turned[first * shares : first * shares + parts, :], src=result.reshape((parts, each * dim))
        )
    return out


def shares_of(tokens: int, heads: int) -> int:
    """Equal shares of the heads that make up to 128 partitions of all tokens: a power of two."""
    shares = 1
    while shares * 2 * tokens <= PARTITIONS and heads % (shares * 2) == 0:
        shares = shares * 2
    return shares


def _angles(table: Tensor, first: int, count: int, shares: int) -> Tensor:
    """Cosines or sines [count * shares, D / 2], the same for all shares of a token."""
    half = table.shape[1]
    angles = nl.ndarray((count * shares, half), dtype=nl.float32, buffer=nl.sbuf)
    if shares == 1:
        nisa.dma_copy(dst=angles, src=table[first : first + count, :])
    else:
        # Three dimensions on one side and two on the other: as many numbers, in the same order.
        pattern = [[half, count], [0, shares], [1, half]]
        nisa.dma_copy(dst=angles, src=table.ap(pattern=pattern, offset=first * half))
    return angles


def rotate(result: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """result, x [P, heads, D] in SBUF or PSUM; cos, sin float32 [P, D / 2] in SBUF."""
    parts, heads, dim = x.shape
    half = dim // 2
    every = [[half, parts], [0, heads], [1, half]]
    low, high = x[:, :, 0:half], x[:, :, half:dim]
    for part in range(2):
        straight, across = (low, high) if part == 0 else (high, low)
        first = nl.ndarray((parts, heads, half), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=first, data1=straight, data2=cos.ap(pattern=every), op=nl.multiply)
        second = nl.ndarray((parts, heads, half), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=second, data1=across, data2=sin.ap(pattern=every), op=nl.multiply)
        nisa.tensor_tensor(
            dst=result[:, :, part * half : (part + 1) * half],
            data1=first,
            data2=second,
            op=nl.subtract if part == 0 else nl.add,
        )


CONTRACT = Contract(
    arguments=(
        Argument("x", "T H D"),
        Argument("cos", "T E", "float32"),
        Argument("sin", "T E", "float32"),
    ),
    results=(Argument("out", "T H D"),),
    limits=(
        Limit("E half of D", lambda size: size["E"] * 2 == size["D"]),
        Limit(
            "H * D numbers of a token in 32 KiB", lambda size: size["H"] * size["D"] * size["item"] <= 32768
        ),
    ),
    tolerance={"bfloat16": 2**-8, "float32": 1e-6},
)
