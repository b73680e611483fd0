"""Attention of a chunk of a prompt over paged KV, its own keys among it, as they were written before.

Tiling. Keys and values of a few key-value heads are brought into SBUF whole, by the block numbers of the row,
and keys transposed there once for all queries. Then, for 128 queries of a head at a time:

  scores   [queries, keys], 512 keys in a product, an added penalty where a key's place is beyond the query's;
  softmax  along the free dimension, in one pass over all keys of the row: their scores fit in SBUF, so there
           is no running maximum to correct by; the scalar engine's exponential also sums;
  mixed    [queries, D] += weights x values, each 128 x 128 weights transposed on the tensor engine first.

Keys lie in SBUF as blocks along partitions and tokens behind each other, so their places come from an iota of
the same order, and nothing is sorted.

SBUF, per partition: keys and values of the heads at hand, at most 64 KiB; penalty and scores, 4 bytes a key
each; weights; a piece of keys as loaded, 16 KiB: so at most 4096 keys, which the contract says. PSUM: scores
2 KiB, transposed keys or weights 2 KiB, output D * 4 bytes. Moved: K and V once each, queries and outputs
once. Matrix work: for 128 queries x 512 keys 512 cycles of scores, 4 x 128 of transposes and 4 x D of
products: 0.55 us. Vector engine: an addition (2 x 512 cycles) and a maximum (512): 1.4 us; scalar engine:
exponentials and copies of transposed weights, 0.73 us.

Counted for a layer of Llama 3.1 8B at tp 8, 512 queries over 4096 keys: 3.1 MB, the vector engine decides
with 150 us, 8 % of the DMA engines' 272 GB/s and 5 % of the HBM's 410.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.paged_decode_attention import load_pages, piece_of, places_of
from outcrop_kernels.nki.tokens import BANK, PARTITIONS, TOGETHER

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

KEPT = 65536
"""Bytes of keys and values that a partition holds."""
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
    chunks = (blocks + PARTITIONS - 1) // PARTITIONS
    item = 4 if query.dtype == nl.float32 else 2
    most = max(1, KEPT // (chunks * size * (min(blocks, PARTITIONS) + dim) * item))
    for row in nl.affine_range(rows):
        places = []
        for chunk in range(chunks):
            parts = min(PARTITIONS, blocks - chunk * PARTITIONS)
            places.append(places_of(tables, row * blocks + chunk * PARTITIONS, parts, gather))
        for first in range(0, kv_heads, most):
            some = min(most, kv_heads - first)
            keys, values = _kept(key_pool, value_pool, places, blocks, first, some, gather)
            for start in range(0, width, PARTITIONS):
                _queries(out, query, positions, keys, values, (row, start, first, group, blocks))
    return out


def _kept(
    key_pool: Tensor,
    value_pool: Tensor,
    places: list[Tensor],
    blocks: int,
    first: int,
    heads: int,
    gather: bool,
) -> tuple[Tensor, Tensor]:
    """Keys [D, heads, chunks, block_size, blocks of a chunk] and values [blocks of a chunk, chunks,
    block_size, heads * D] of some heads, of a whole row."""
    _, size, _, dim = key_pool.shape
    chunks, held = len(places), min(blocks, PARTITIONS)
    keys = nl.ndarray((dim, heads, chunks, size, held), dtype=key_pool.dtype, buffer=nl.sbuf)
    values = nl.ndarray((held, chunks, size, heads * dim), dtype=key_pool.dtype, buffer=nl.sbuf)
    piece = piece_of(size, heads, dim, key_pool.dtype)
    for chunk in range(chunks):
        parts = min(PARTITIONS, blocks - chunk * PARTITIONS)
        for start in range(0, size, piece):
            span = min(piece, size - start)
            given = nl.ndarray((parts, span, heads * dim), dtype=key_pool.dtype, buffer=nl.sbuf)
            load_pages(given, key_pool, places[chunk], start, first, gather)
            part = values[0:parts, chunk, start : start + span, :]
            load_pages(part, value_pool, places[chunk], start, first, gather)
            for head in range(heads):
                for begin in range(0, span, TOGETHER):
                    some = min(TOGETHER, span - begin)
                    turn = nl.ndarray((dim, some, parts), dtype=key_pool.dtype, buffer=nl.psum)
                    for token in range(some):
                        nisa.nc_transpose(
                            dst=turn[:, token, :],
                            data=given[:, begin + token, head * dim : (head + 1) * dim],
                        )
                    at = start + begin
                    nisa.activation(dst=keys[:, head, chunk, at : at + some, 0:parts], op=nl.copy, data=turn)
    return keys, values


def _queries(
    out: Tensor,
    query: Tensor,
    positions: Tensor,
    keys: Tensor,
    values: Tensor,
    at: tuple[int, int, int, int, int],
) -> None:
    """Up to 128 queries of all heads that share the key-value heads at hand.

    at: the row, the first query, the first key-value head, query heads to each of those, the row's blocks.
    """
    row, start, first, group, blocks = at
    rows, width, heads, dim = query.shape
    count = min(PARTITIONS, width - start)
    begin = row * width + start
    penalty = _penalty(positions.reshape((rows * width, 1)), keys.shape, begin, count)
    given = query.reshape((rows * width, heads * dim))
    made = out.reshape((rows * width, heads * dim))
    for head in range(keys.shape[1]):
        low, high = (first + head) * group * dim, (first + head + 1) * group * dim
        asked = nl.ndarray((count, group * dim), dtype=query.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=asked, src=given[begin : begin + count, low:high])
        result = nl.ndarray((count, group * dim), dtype=query.dtype, buffer=nl.sbuf)
        for member in range(group):
            left, right = member * dim, (member + 1) * dim
            weights, inverse = _weights(asked[:, left:right], penalty, keys, head, blocks)
            mixed = _mixed(weights, values, head, blocks, dim)
            nisa.tensor_scalar(dst=result[:, left:right], data=mixed, op0=nl.multiply, operand0=inverse)
        nisa.dma_copy(dst=made[begin : begin + count, low:high], src=result)


def _penalty(positions: Tensor, keys: tuple[int, ...], begin: int, count: int) -> Tensor:
    """For each of `count` queries what is added to its products: [count, chunks, block_size, blocks of a
    chunk]. keys: the shape of those."""
    _, _, chunks, size, held = keys
    seen = nl.ndarray((count, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=seen, src=positions[begin : begin + count, :])
    limit = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=limit, src=seen)
    penalty = nl.ndarray((count, chunks, size, held), dtype=nl.float32, buffer=nl.sbuf)
    for chunk in range(chunks):
        place = nl.ndarray((count, size, held), dtype=nl.float32, buffer=nl.sbuf)
        nisa.iota(
            place, pattern=[[1, size], [size, held]], offset=chunk * PARTITIONS * size, channel_multiplier=0
        )
        nisa.tensor_scalar(
            dst=penalty[:, chunk, :, :],
            data=place,
            op0=nl.greater,
            operand0=limit,
            op1=nl.multiply,
            operand1=HIDDEN,
        )
    return penalty


def _weights(asked: Tensor, penalty: Tensor, keys: Tensor, head: int, blocks: int) -> tuple[Tensor, Tensor]:
    """Exponentials of one head's queries [count, D] with all keys, in the queries' dtype, and the reciprocals
    of their sums [count, 1]."""
    count, dim = asked.shape
    _, _, chunks, size, held = keys.shape
    turn = nl.ndarray((dim, count), dtype=asked.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=turn, data=asked)
    queries = nl.ndarray((dim, count), dtype=asked.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=queries, src=turn)
    scores = nl.ndarray((count, chunks, size, held), dtype=nl.float32, buffer=nl.sbuf)
    if chunks * held > blocks:
        # Blocks that the last chunk does not have.
        nisa.memset(scores, value=HIDDEN)
    step = min(size, BANK // held)
    for chunk in range(chunks):
        parts = min(PARTITIONS, blocks - chunk * PARTITIONS)
        for start in range(0, size, step):
            end = min(size, start + step)
            made = nl.ndarray((count, end - start, parts), dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(dst=made, stationary=queries, moving=keys[:, head, chunk, start:end, 0:parts])
            nisa.tensor_tensor(
                dst=scores[:, chunk, start:end, 0:parts],
                data1=penalty[:, chunk, start:end, 0:parts],
                data2=made,
                op=nl.add,
            )
    most = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=most, op=nl.maximum, data=scores, axis=(1, 2, 3), negate=True)
    shift = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=shift, data=most, op0=nl.multiply, operand0=dim**-0.5)
    weights = nl.ndarray((count, chunks, size, held), dtype=asked.dtype, buffer=nl.sbuf)
    total = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(
        dst=weights,
        op=nl.exp,
        data=scores,
        bias=shift,
        scale=dim**-0.5,
        reduce_op=nl.add,
        reduce_res=total,
        reduce_cmd=nisa.reduce_cmd.reset_reduce,
    )
    inverse = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.reciprocal(dst=inverse, data=total)
    return weights, inverse


def _mixed(weights: Tensor, values: Tensor, head: int, blocks: int, dim: int) -> Tensor:
    """The sum of one head's values by their weights: float32 [count, D] in PSUM."""
    count, chunks, size, _ = weights.shape
    mixed = nl.ndarray((count, dim), dtype=nl.float32, buffer=nl.psum)
    for chunk in range(chunks):
        parts = min(PARTITIONS, blocks - chunk * PARTITIONS)
        for start in range(0, size, TOGETHER):
            some = min(TOGETHER, size - start)
            turn = nl.ndarray((parts, some, count), dtype=weights.dtype, buffer=nl.psum)
            for token in range(some):
                nisa.nc_transpose(dst=turn[:, token, :], data=weights[:, chunk, start + token, 0:parts])
            stationary = nl.ndarray((parts, some, count), dtype=weights.dtype, buffer=nl.sbuf)
            nisa.activation(dst=stationary, op=nl.copy, data=turn)
            for token in range(some):
                nisa.nc_matmul(
                    dst=mixed,
                    stationary=stationary[:, token, :],
                    moving=values[0:parts, chunk, start + token, head * dim : (head + 1) * dim],
                )
    return mixed


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
        Limit("B * S at most 4096, in blocks up to a multiple of 128", lambda size: _keys(size) <= 4096),
    ),
    tolerance={"bfloat16": 2**-7, "float32": 2e-6},
)


def _keys(size: Mapping[str, int]) -> int:
    """Of a row, with what its last blocks leave empty."""
    chunks = -(-size["B"] // PARTITIONS)
    return chunks * min(size["B"], PARTITIONS) * size["S"]
