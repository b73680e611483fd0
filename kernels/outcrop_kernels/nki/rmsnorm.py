"""Root mean square norm, of a sum where one is to be made first.

Tiling. Few tokens leave most of 128 partitions idle, so a token has S of them (a power of two, S * tokens at
most 128) with H / S of its numbers each. Sums of squares come from the scalar engine, one a partition; a
product with a matrix of zeros and ones adds up those of a token and puts the total in all of its partitions.
The norm's weight, in the same way, is read once and comes to every token by a product with zeros and ones.

SBUF, per partition: input, update, sum and output, H / S numbers each, at most 64 KiB for 128 tokens of 4096.
PSUM: the weight, H / S * 4 bytes, a bank at a time; the totals. Moved: x (and the update) once, the result
once (and the sum): nothing is read twice, the weight once for all tokens. Matrix work: H / S columns of S
rows. Scalar engine: H / S cycles; vector engine: 2 H / S for a norm and as many again for a sum.

Counted for 32 tokens of 4096 in bfloat16 (S is 4): vector and GpSimd 2.7 us, DMA 2.0, tensor 0.5: 71 % of the
DMA engines' 272 GB/s, 47 % of the HBM's 410.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.tokens import BANK, PARTITIONS, load, shares_of, store

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor


@nki.jit
def rmsnorm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [T, H] to unit root mean square in float32, by weight [H]: [T, H]."""
    tokens, width = x.shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    shares = shares_of(min(tokens, PARTITIONS), width)
    step = PARTITIONS // shares
    for tile in nl.affine_range((tokens + step - 1) // step):
        first = tile * step
        count = min(step, tokens - first)
        result = normed(load(x, first, count, shares), weight, shares, eps)
        store(out, result, first, shares)
    return out


@nki.jit
def add_rmsnorm(x: Tensor, update: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + update [T, H] in their dtype, and the norm of that: both [T, H]."""
    tokens, width = x.shape
    total = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    shares = shares_of(min(tokens, PARTITIONS), width)
    step = PARTITIONS // shares
    for tile in nl.affine_range((tokens + step - 1) // step):
        first = tile * step
        count = min(step, tokens - first)
        added = nl.ndarray((count * shares, width // shares), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_tensor(
            dst=added,
            data1=load(x, first, count, shares),
            data2=load(update, first, count, shares),
            op=nl.add,
        )
        store(total, added, first, shares)
        store(out, normed(added, weight, shares, eps), first, shares)
    return total, out


def normed(x: Tensor, weight: Tensor, shares: int, eps: float) -> Tensor:
    """The norm of x [P, H / shares] in SBUF, `shares` partitions a token, by weight [H] in HBM."""
    parts, width = x.shape
    squares = nl.ndarray((parts, width), dtype=nl.float32, buffer=nl.sbuf)
    mine = nl.ndarray((parts, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(
        dst=squares,
        op=nl.square,
        data=x,
        reduce_op=nl.add,
        reduce_res=mine,
        reduce_cmd=nisa.reduce_cmd.reset_reduce,
    )
    small = nl.ndarray((parts, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(small, value=eps)
    scale = nl.ndarray((parts, 1), dtype=nl.float32, buffer=nl.sbuf)
    total = nl.ndarray((parts, 1), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=_same_token(parts, shares), moving=mine)
    nisa.activation(dst=scale, op=nl.rsqrt, data=total, bias=small, scale=1.0 / (width * shares))
    given = nl.ndarray((shares, width), dtype=weight.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=given, src=weight.reshape((shares, width)))
    pick = _same_share(parts, shares, weight.dtype)
    result = nl.ndarray((parts, width), dtype=x.dtype, buffer=nl.sbuf)
    for start in range(0, width, BANK):
        end = min(width, start + BANK)
        weights = nl.ndarray((parts, end - start), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=weights, stationary=pick, moving=given[:, start:end])
        nisa.scalar_tensor_tensor(
            dst=result[:, start:end],
            data=x[:, start:end],
            op0=nl.multiply,
            operand0=scale,
            op1=nl.multiply,
            operand1=weights,
        )
    return result


def _same_token(parts: int, shares: int) -> Tensor:
    """float32 [P, P]: 1 where both partitions are of one token."""
    distance = nl.ndarray((parts, parts), dtype=nl.float32, buffer=nl.sbuf)
    nisa.iota(distance, pattern=[[-shares, parts // shares], [0, shares]], offset=0, channel_multiplier=1)
    behind = nl.ndarray((parts, parts), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=behind, data=distance, op0=nl.greater_equal, operand0=0.0)
    same = nl.ndarray((parts, parts), dtype=nl.float32, buffer=nl.sbuf)
    nisa.scalar_tensor_tensor(
        dst=same, data=distance, op0=nl.less, operand0=float(shares), op1=nl.multiply, operand1=behind
    )
    return same


def _same_share(parts: int, shares: int, dtype: str) -> Tensor:
    """[shares, P]: 1 where the partition has that share of its token."""
    distance = nl.ndarray((shares, parts), dtype=nl.float32, buffer=nl.sbuf)
    nisa.iota(distance, pattern=[[0, parts // shares], [1, shares]], offset=0, channel_multiplier=-1)
    same = nl.ndarray((shares, parts), dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=same, data=distance, op0=nl.equal, operand0=0.0)
    return same


_LIMITS = (
    Limit("H a multiple of 64", lambda size: size["H"] % 64 == 0),
    Limit("H numbers of a token in 32 KiB", lambda size: size["H"] * size["item"] <= 32768),
)
RMSNORM = Contract(
    arguments=(Argument("x", "T H"), Argument("weight", "H")),
    results=(Argument("out", "T H"),),
    limits=_LIMITS,
    tolerance={"bfloat16": 2**-8, "float32": 1e-6},
)
ADD_RMSNORM = Contract(
    arguments=(Argument("x", "T H"), Argument("update", "T H"), Argument("weight", "H")),
    results=(Argument("total", "T H"), Argument("out", "T H")),
    limits=_LIMITS,
    tolerance={"bfloat16": 2**-8, "float32": 1e-6},
)
