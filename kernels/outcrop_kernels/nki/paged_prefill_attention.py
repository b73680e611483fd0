"""Attention of a chunk of a prompt over paged KV, its own keys among it, as they were written before.

Tiling. Up to 4096 keys of a row pass at a time: those and their values are brought into SBUF for a few
key-value heads, by the row's block numbers, and keys transposed there once for all queries at hand. Then, for
128 queries of a head at a time:

  scores   [queries, keys], 512 keys in a product, an added penalty where a key's place is beyond the query's;
  softmax  along the free dimension: the exponentials less the largest score so far, which the scalar engine
           also sums; what was summed before, of earlier keys, is made smaller by as much as the largest rose;
  mixed    [queries, D] += weights x values, each 128 x 128 weights transposed on the tensor engine first.

Sums of up to 1024 queries (with 4 query heads to a key-value head of 128) stay in SBUF while all keys pass,
so a longer chunk reads KV once for each 1024. Keys lie in SBUF as blocks along partitions and tokens behind
each other, so their places come from an iota of the same order, and nothing is sorted.

SBUF, per partition: keys and values of the heads at hand, 32 KiB, or what one head takes; places, penalty and
scores, 16 KiB each; weights, as much at most; sums, 16 KiB; a piece of keys as loaded, 16 KiB. PSUM: scores
2 KiB, transposed keys or weights 2 KiB, output D * 4 bytes. Moved: K and V once for each 1024 queries,
queries once for each 4096 keys, outputs once. Matrix work: for 128 queries x 512 keys 512 cycles of scores, 4
x 128 of transposes and 4 x D of products: 0.55 us. Vector engine: an addition (2 x 512 cycles) and a maximum
(512): 1.4 us; scalar engine: exponentials and copies of transposed weights, 0.73 us.

Counted for a layer of Llama 3.1 8B at tp 8, 512 queries: over 4096 keys 3.1 MB, the vector engine decides
with 153 us, 8 % of the DMA engines' 272 GB/s and 5 % of the HBM's 410; over 8192 keys 5.8 MB, 308 us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.paged_decode_attention import load_pages, piece_of, places_of
from outcrop_kernels.nki.tokens import BANK, PARTITIONS, TOGETHER

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

KEYS = 4096
"""That pass at a time: a partition holds as many scores of a query."""
KEPT = 32768
"""Bytes of keys and values that a partition holds, if one head's are not more."""
SUMS = 16384
"""Bytes of sums that a partition holds while keys pass."""
HIDDEN = -1.0e6
"""Added to a product, before it is scaled, that a query may not see: beyond any sum of them."""


@nki.jit
def paged_prefill_attention(
    query: Tensor, key_pool: Tensor, value_pool: Tensor, tables: Tensor, positions: Tensor, gather: bool
) -> Tensor:
    """query [R, Q, heads, D]; pools [blocks, block_size, kv_heads, D]; tables [R, B] int32; positions [R, Q]
    int32, of which a token sees those up to its own. Returns [R, Q, heads, D].

    gather: one DMA for all blocks, whose numbers are in SBUF; otherwise one DMA a block.
    """
    rows, width, heads, dim = query.shape
    _, size, kv_heads, _ = key_pool.shape
    blocks, group = tables.shape[1], heads // kv_heads
    out = nl.ndarray(query.shape, dtype=query.dtype, buffer=nl.shared_hbm)
    held = min(blocks, PARTITIONS, KEYS // size)
    item = 4 if query.dtype == nl.float32 else 2
    most = max(1, min(kv_heads, KEPT // (size * (held + dim) * item)))
    together = PARTITIONS * max(1, SUMS // (most * group * dim * 4))
    for row in nl.affine_range(rows):
        for first in range(0, kv_heads, most):
            some = min(most, kv_heads - first)
            for start in range(0, width, together):
                count = min(together, width - start)
                sums = _sums(count, some * group, dim)
                for block in range(0, blocks, held):
                    parts = min(held, blocks - block)
                    places = places_of(tables, row * blocks + block, parts, gather)
                    kept = _kept(key_pool, value_pool, places, parts, first, some, gather)
                    for tile in range(len(sums)):
                        begin = row * width + start + tile * PARTITIONS
                        _attend(sums[tile], query, positions, kept, begin, first, block * size)
                for tile in range(len(sums)):
                    begin = row * width + start + tile * PARTITIONS
                    _write(out, sums[tile], begin, first * group)
    return out


def _sums(count: int, columns: int, dim: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For 128 of the queries at a time and each of their heads, a column: the largest score so far, negative
    [P, columns]; the sum of the weights [P, columns]; that of the values by their weights [P, columns, D]."""
    found = []
    for start in range(0, count, PARTITIONS):
        parts = min(PARTITIONS, count - start)
        least = nl.ndarray((parts, columns), dtype=nl.float32, buffer=nl.sbuf)
        total = nl.ndarray((parts, columns), dtype=nl.float32, buffer=nl.sbuf)
        mixed = nl.ndarray((parts, columns, dim), dtype=nl.float32, buffer=nl.sbuf)
        found.append((least, total, mixed))
    return found


def _kept(
    key_pool: Tensor,
    value_pool: Tensor,
    places: Tensor,
    parts: int,
    first: int,
    heads: int,
    gather: bool,
) -> tuple[Tensor, Tensor]:
    """Keys [D, heads, block_size, parts] and values [parts, block_size, heads * D] of the blocks at `places`,
    so many, and of some heads."""
    _, size, _, dim = key_pool.shape
    keys = nl.ndarray((dim, heads, size, parts), dtype=key_pool.dtype, buffer=nl.sbuf)
    values = nl.ndarray((parts, size, heads * dim), dtype=key_pool.dtype, buffer=nl.sbuf)
    piece = piece_of(size, heads, dim, key_pool.dtype)
    for start in range(0, size, piece):
        span = min(piece, size - start)
        given = nl.ndarray((parts, span, heads * dim), dtype=key_pool.dtype, buffer=nl.sbuf)
        load_pages(given, key_pool, places, start, first, gather)
        load_pages(values[:, start : start + span, :], value_pool, places, start, first, gather)
        for head in range(heads):
            for begin in range(0, span, TOGETHER):
                some = min(TOGETHER, span - begin)
                turn = nl.ndarray((dim, some, parts), dtype=key_pool.dtype, buffer=nl.psum)
                for token in range(some):
                    nisa.nc_transpose(
                        dst=turn[:, token, :], data=given[:, begin + token, head * dim : (head + 1) * dim]
                    )
                at = start + begin
                nisa.activation(dst=keys[:, head, at : at + some, :], op=nl.copy, data=turn)
    return keys, values


def _attend(
    sums: tuple[Tensor, Tensor, Tensor],
    query: Tensor,
    positions: Tensor,
    kept: tuple[Tensor, Tensor],
    begin: int,
    first: int,
    place: int,
) -> None:
    """Up to 128 queries, the flattened ones from `begin` on, of all heads that share the key-value heads at
    hand, whose first is `first`. place: of the first key."""
    rows, width, heads, dim = query.shape
    keys, values = kept
    count, columns = sums[0].shape
    group = columns // keys.shape[1]
    penalty = _penalty(positions.reshape((rows * width, 1)), keys.shape, begin, count, place)
    given = query.reshape((rows * width, heads * dim))
    for head in range(keys.shape[1]):
        low, high = (first + head) * group * dim, (first + head + 1) * group * dim
        asked = nl.ndarray((count, group * dim), dtype=query.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=asked, src=given[begin : begin + count, low:high])
        for member in range(group):
            scores = _scores(asked[:, member * dim : (member + 1) * dim], penalty, keys, head)
            _add(sums, scores, values, head, head * group + member, place == 0)


def _penalty(positions: Tensor, keys: tuple[int, ...], begin: int, count: int, place: int) -> Tensor:
    """For each of `count` queries what is added to its products: [count, block_size, blocks]. keys: the shape
    of those; place: of the first."""
    _, _, size, parts = keys
    seen = nl.ndarray((count, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=seen, src=positions[begin : begin + count, :])
    limit = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=limit, src=seen)
    places = nl.ndarray((count, size, parts), dtype=nl.float32, buffer=nl.sbuf)
    nisa.iota(places, pattern=[[1, size], [size, parts]], offset=place, channel_multiplier=0)
    penalty = nl.ndarray((count, size, parts), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=penalty, data=places, op0=nl.greater, operand0=limit, op1=nl.multiply, operand1=HIDDEN
    )
    return penalty


def _scores(asked: Tensor, penalty: Tensor, keys: Tensor, head: int) -> Tensor:
    """Products of one head's queries [count, D] with the keys, less the penalty: [count, block_size,
    blocks]."""
    count, dim = asked.shape
    _, _, size, parts = keys.shape
    turn = nl.ndarray((dim, count), dtype=asked.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=turn, data=asked)
    queries = nl.ndarray((dim, count), dtype=asked.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=queries, src=turn)
    scores = nl.ndarray((count, size, parts), dtype=nl.float32, buffer=nl.sbuf)
    step = min(size, BANK // parts)
    for start in range(0, size, step):
        end = min(size, start + step)
        made = nl.ndarray((count, end - start, parts), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=made, stationary=queries, moving=keys[:, head, start:end, :])
        nisa.tensor_tensor(dst=scores[:, start:end, :], data1=penalty[:, start:end, :], data2=made, op=nl.add)
    return scores


def _add(
    sums: tuple[Tensor, Tensor, Tensor], scores: Tensor, values: Tensor, head: int, column: int, fresh: bool
) -> None:
    """One head's keys to its column of the sums. fresh: they are the first of the row."""
    least, total, mixed = sums
    count, size, parts = scores.shape
    dim = mixed.shape[2]
    here = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=here, op=nl.maximum, data=scores, axis=(1, 2), negate=True)
    before = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    if not fresh:
        nisa.tensor_copy(dst=before, src=least[:, column : column + 1])
        nisa.tensor_tensor(dst=here, data1=here, data2=before, op=nl.minimum)
    nisa.tensor_copy(dst=least[:, column : column + 1], src=here)
    shift = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=shift, data=here, op0=nl.multiply, operand0=dim**-0.5)
    weights = nl.ndarray((count, size, parts), dtype=values.dtype, buffer=nl.sbuf)
    new = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(
        dst=weights,
        op=nl.exp,
        data=scores,
        bias=shift,
        scale=dim**-0.5,
        reduce_op=nl.add,
        reduce_res=new,
        reduce_cmd=nisa.reduce_cmd.reset_reduce,
    )
    made = _mixed(weights, values, head, dim)
    if fresh:
        nisa.tensor_copy(dst=total[:, column : column + 1], src=new)
        nisa.tensor_copy(dst=mixed[:, column, :], src=made)
        return
    rise = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=rise, data1=here, data2=before, op=nl.subtract)
    smaller = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=smaller, op=nl.exp, data=rise, scale=dim**-0.5)
    _renew(total[:, column : column + 1], smaller, new)
    _renew(mixed[:, column, :], smaller, made)


def _renew(held: Tensor, smaller: Tensor, more: Tensor) -> None:
    nisa.scalar_tensor_tensor(
        dst=held, data=held, op0=nl.multiply, operand0=smaller, op1=nl.add, operand1=more
    )


def _mixed(weights: Tensor, values: Tensor, head: int, dim: int) -> Tensor:
    """The sum of one head's values by their weights: float32 [count, D] in PSUM."""
    count, size, parts = weights.shape
    mixed = nl.ndarray((count, dim), dtype=nl.float32, buffer=nl.psum)
    for start in range(0, size, TOGETHER):
        some = min(TOGETHER, size - start)
        turn = nl.ndarray((parts, some, count), dtype=weights.dtype, buffer=nl.psum)
        for token in range(some):
            nisa.nc_transpose(dst=turn[:, token, :], data=weights[:, start + token, :])
        stationary = nl.ndarray((parts, some, count), dtype=weights.dtype, buffer=nl.sbuf)
        nisa.activation(dst=stationary, op=nl.copy, data=turn)
        for token in range(some):
            nisa.nc_matmul(
                dst=mixed,
                stationary=stationary[:, token, :],
                moving=values[:, start + token, head * dim : (head + 1) * dim],
            )
    return mixed


def _write(out: Tensor, sums: tuple[Tensor, Tensor, Tensor], begin: int, first: int) -> None:
    """What the queries from `begin` on, of the heads from `first` on, have come to."""
    rows, width, heads, dim = out.shape
    _, total, mixed = sums
    count, columns = total.shape
    inverse = nl.ndarray((count, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.reciprocal(dst=inverse, data=total)
    result = nl.ndarray((count, columns, dim), dtype=out.dtype, buffer=nl.sbuf)
    for column in range(columns):
        nisa.tensor_scalar(
            dst=result[:, column, :],
            data=mixed[:, column, :],
            op0=nl.multiply,
            operand0=inverse[:, column : column + 1],
        )
    low, high = first * dim, (first + columns) * dim
    nisa.dma_copy(
        dst=out.reshape((rows * width, heads * dim))[begin : begin + count, low:high],
        src=result.reshape((count, columns * dim)),
    )


CONTRACT = Contract(
    arguments=(
        Argument("query", "R Q H D"),
        Argument("key_pool", "N S K D"),
        Argument("value_pool", "N S K D"),
        Argument("tables", "R B", "int32"),
        Argument("positions", "R Q", "int32"),
    ),
    results=(Argument("mixed", "R Q H D"),),
    limits=(
        Limit("D 64 or 128", lambda size: size["D"] in (64, 128)),
        Limit("H a multiple of K", lambda size: size["H"] % size["K"] == 0),
        Limit("S at most 128", lambda size: size["S"] <= 128),
        Limit("B * S at most 131072", lambda size: size["B"] * size["S"] <= 131072),
    ),
    tolerance={"bfloat16": 2**-7, "float32": 4e-6},
)
