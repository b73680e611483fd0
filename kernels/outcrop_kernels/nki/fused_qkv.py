"""Norm, projection to queries, keys and values, and rotary embedding of a decode step's tokens.

Tiling. The tokens' norm is made as in `rmsnorm` and turned, so that H runs along the partitions. The
projection streams its matrix once: tiles of 128 inputs by up to 2048 outputs are the moving matrix, the
tokens the stationary one, and the sums of 2048 outputs stay in four banks of PSUM over all inputs. Out of
them queries and keys are turned by their angles on the way to the result's dtype, and values copied.

SBUF, per partition: turned tokens, H * T / 128 numbers (2 KiB for 32 of 4096); a tile of the matrix, 4 KiB;
outputs. PSUM: 8 KiB of sums. Moved: the matrix once, tokens and results once; neither the normed tokens nor
the unrotated products go to HBM and back, which is 6 * T * H bytes less than apart. Matrix work: (heads + 2
kv_heads) * D columns for each 128 inputs, 0.18 us for the 128 KiB that DMA brings in 0.48 us.

Counted for 32 tokens of Llama 3.1 8B at tp 8 (4096 by 768): 6.6 MB, DMA decides with 24.5 us, at 100 % of its
272 GB/s and 66 % of the HBM's 410; tensor 9.6, vector and GpSimd 6.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.rmsnorm import normed
from outcrop_kernels.nki.rope import rotate
from outcrop_kernels.nki.tokens import BANK, PARTITIONS, load, shares_of, sums, turned

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

BLOCK = 2048
"""Outputs whose sums are in PSUM at a time."""


@nki.jit
def fused_qkv(
    x: Tensor, norm: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, H], T at most 128; norm [H]; weight [H, (heads + 2 kv_heads) * D], inputs first; cos, sin float32
    [T, D / 2]. Returns queries [T, heads, D], keys and values [T, kv_heads, D]."""
    tokens, width = x.shape
    outputs, dim = weight.shape[1], 2 * cos.shape[1]
    kv_heads = (outputs // dim - heads) // 2
    query = nl.ndarray((tokens, heads, dim), dtype=x.dtype, buffer=nl.shared_hbm)
    key = nl.ndarray((tokens, kv_heads, dim), dtype=x.dtype, buffer=nl.shared_hbm)
    value = nl.ndarray((tokens, kv_heads, dim), dtype=x.dtype, buffer=nl.shared_hbm)
    shares = shares_of(tokens, width)
    inputs = turned(normed(load(x, 0, tokens, shares), norm, shares, eps), shares)
    angles = (
        nl.ndarray(cos.shape, dtype=nl.float32, buffer=nl.sbuf),
        nl.ndarray(sin.shape, dtype=nl.float32, buffer=nl.sbuf),
    )
    nisa.dma_copy(dst=angles[0], src=cos)
    nisa.dma_copy(dst=angles[1], src=sin)
    for start in range(0, outputs, BLOCK):
        count = min(BLOCK, outputs - start)
        banks = sums(tokens, dim, count // dim)
        for share in range(shares):
            for tile in range(width // shares // PARTITIONS):
                row = share * (width // shares) + tile * PARTITIONS
                some = nl.ndarray((PARTITIONS, count), dtype=weight.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=some, src=weight[row : row + PARTITIONS, start : start + count])
                for bank in range(len(banks)):
                    end = min(count, (bank + 1) * BANK)
                    nisa.nc_matmul(
                        dst=banks[bank],
                        stationary=inputs[:, tile, :, share],
                        moving=some[:, bank * BANK : end],
                    )
        for bank in range(len(banks)):
            first = (start + bank * BANK) // dim
            _out(query, banks[bank], first, 0, angles)
            _out(key, banks[bank], first, heads, angles)
            _out(value, banks[bank], first, heads + kv_heads, ())
    return query, key, value


def _out(out: Tensor, made: Tensor, first: int, begin: int, angles: tuple[Tensor, ...]) -> None:
    """Those of the heads first .. of `made` [T, some, D] that are `out`'s, whose first head is `begin`."""
    tokens, count, dim = out.shape
    low, high = max(first, begin), min(first + made.shape[1], begin + count)
    if low < high:
        part = made[:, low - first : high - first, :]
        result = nl.ndarray((tokens, high - low, dim), dtype=out.dtype, buffer=nl.sbuf)
        if len(angles) == 2:
            rotate(result, part, angles[0], angles[1])
        else:
            nisa.tensor_copy(dst=result, src=part)
        nisa.dma_copy(dst=out[:, low - begin : high - begin, :], src=result)


CONTRACT = Contract(
    arguments=(
        Argument("x", "T I"),
        Argument("norm", "I"),
        Argument("weight", "I O"),
        Argument("cos", "T E", "float32"),
        Argument("sin", "T E", "float32"),
    ),
    results=(Argument("query", "T H D"), Argument("key", "T K D"), Argument("value", "T K D")),
    limits=(
        Limit("T at most 128", lambda size: size["T"] <= 128),
        Limit("I a multiple of 128", lambda size: size["I"] % 128 == 0),
        Limit("D (2 * E) 64 or 128", lambda size: size["E"] in (32, 64)),
        Limit("O whole heads", lambda size: size["O"] % (2 * size["E"]) == 0),
        Limit("I numbers of a token in 32 KiB", lambda size: size["I"] * size["item"] <= 32768),
    ),
    tolerance={"bfloat16": 2**-7, "float32": 2e-6},
)
