"""Attention of one or a few tokens a row over paged KV, which is read once and never gathered in HBM.

Tiling. The partitions are blocks: one DMA brings the same tokens of up to 128 blocks, of one row or of
several that have fewer blocks, straight from the pool into SBUF. Descriptors are whole pieces of blocks, 8
KiB at tp 8 (32 tokens, one head of 128, bfloat16), where rows of single tokens would be 256 bytes. For each
token of a block and each key-value head:

  keys     [blocks, D] are transposed on the tensor engine, four at a time, and become the stationary matrix;
  scores   [blocks, columns] = keys x queries, a column for each row, token and query head that share the KV
           head;
  softmax  along partitions: largest of a partition's scores, transposed, largest of all, transposed back; the
           exponentials are bfloat16, as the weights of the reference are;
  mixed    [columns, D] += weights x values, summed in PSUM over all blocks; divided by the sum of the weights
           last.

Columns of rows whose blocks a partition does not hold are masked, so they add exact zeros.

SBUF, per partition: a piece of keys and one of values, 16 KiB each at most; scores in float32 and weights, at
most 48 KiB together (rows are taken in groups that keep to it). PSUM: transposed keys 2 KiB, scores 2 KiB,
output kv_heads * D * 4 bytes. Moved: K and V of the table's blocks once each, queries, outputs and tables:
the roofline of a decode step, to which XLA's gather adds a write and a read of the same bytes. Matrix work,
per 128 blocks x token x head: a transposition and a product of 128 columns and one of `columns` (64 cycles at
least): 0.11 us for 64 KiB of K and V, which the DMA engines bring in 0.24 us. Vector and scalar engine share
the copies of transposed keys, 0.05 us each.

Counted for a layer of Llama 3.1 8B at tp 8, 32 rows of 8192 tokens (`outcrop kernels profile`): 134 MB, DMA
510 us, tensor engine 244, vector and GpSimd 198, scalar 100: DMA decides, at 97 % of its 272 GB/s and 64 % of
the HBM's 410. Below 1024 tokens a row the vector engine does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.tokens import BANK, PARTITIONS, TOGETHER, sums

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

PIECE = 16384
"""Bytes of keys, and of values, that a partition holds at a time."""
SCORES = 32768
"""Bytes of scores that a partition holds."""


@nki.jit
def paged_decode_attention(
    query: Tensor, key_pool: Tensor, value_pool: Tensor, tables: Tensor, positions: Tensor, gather: bool
) -> Tensor:
    """query [R, Q, heads, D]; pools [blocks, block_size, kv_heads, D]; tables [R, B] int32; positions [R, Q]
    int32, of which a token sees those up to its own. Returns [R, Q, heads, D].

    gather: one DMA for all blocks, whose numbers are in SBUF; otherwise one DMA a block.
    """
    rows, width, _, _ = query.shape
    out = nl.ndarray(query.shape, dtype=query.dtype, buffer=nl.shared_hbm)
    together = rows_together(query.shape, key_pool.shape, tables.shape[1])
    seen = nl.ndarray((PARTITIONS, rows * width), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=seen, src=positions.ap(pattern=[[0, PARTITIONS], [1, rows * width]]))
    limits = nl.ndarray((PARTITIONS, rows * width), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=limits, src=seen)
    for group in nl.affine_range((rows + together - 1) // together):
        first = group * together
        count = min(together, rows - first)
        _rows(out, query, key_pool, value_pool, tables, limits, first, count, gather)
    return out


def rows_together(query: tuple[int, ...], pool: tuple[int, ...], blocks: int) -> int:
    """How many rows share the partitions: as many as their blocks, the columns of the products (128) and the
    memory for scores allow."""
    rows, width, heads, _ = query
    _, size, kv_heads, _ = pool
    columns = width * (heads // kv_heads)
    chunks = (blocks + PARTITIONS - 1) // PARTITIONS
    most = min(
        PARTITIONS // blocks, PARTITIONS // columns, SCORES // (chunks * kv_heads * size * columns * 4)
    )
    return max(1, min(rows, most))


def _rows(
    out: Tensor,
    query: Tensor,
    key_pool: Tensor,
    value_pool: Tensor,
    tables: Tensor,
    limits: Tensor,
    first: int,
    count: int,
    gather: bool,
) -> None:
    """The rows from `first` on, `count` of them, whose blocks share the partitions."""
    _, width, heads, dim = query.shape
    _, size, kv_heads, _ = key_pool.shape
    blocks, group, tokens = tables.shape[1], heads // kv_heads, count * width
    columns = tokens * group
    chunks = (count * blocks + PARTITIONS - 1) // PARTITIONS
    held = min(count * blocks, PARTITIONS)
    piece = piece_of(size, kv_heads, dim, key_pool.dtype)
    turned = _queries(query, first, count)
    scores = nl.ndarray((held, chunks, kv_heads, size, columns), dtype=nl.float32, buffer=nl.sbuf)
    if chunks * held > count * blocks:
        # What the last chunk does not have must not be seen.
        nisa.memset(scores, value=-3.0e38)
    places = []
    for chunk in range(chunks):
        parts = min(held, count * blocks - chunk * PARTITIONS)
        places.append(places_of(tables, first * blocks + chunk * PARTITIONS, parts, gather))
        hidden = _hidden(limits, first, count, width, blocks, size, chunk, parts)
        for start in range(0, size, piece):
            span = min(piece, size - start)
            keys = nl.ndarray((parts, span, kv_heads * dim), dtype=key_pool.dtype, buffer=nl.sbuf)
            load_pages(keys, key_pool, places[chunk], start, 0, gather)
            for head in range(kv_heads):
                _scores(scores, keys, turned, hidden, chunk, head, start)
    weights = nl.ndarray((held, chunks, kv_heads, size, columns), dtype=query.dtype, buffer=nl.sbuf)
    inverse = nl.ndarray((columns, kv_heads), dtype=nl.float32, buffer=nl.sbuf)
    for head in range(kv_heads):
        _softmax(weights, inverse, scores, head, dim)
    each = BANK // dim
    mixed = sums(columns, dim, kv_heads)
    for chunk in range(chunks):
        parts = min(held, count * blocks - chunk * PARTITIONS)
        for start in range(0, size, piece):
            span = min(piece, size - start)
            values = nl.ndarray((parts, span, kv_heads * dim), dtype=value_pool.dtype, buffer=nl.sbuf)
            load_pages(values, value_pool, places[chunk], start, 0, gather)
            for head in range(kv_heads):
                for token in range(span):
                    nisa.nc_matmul(
                        dst=mixed[head // each][:, head % each, :],
                        stationary=weights[0:parts, chunk, head, start + token, :],
                        moving=values[:, token, head * dim : (head + 1) * dim],
                    )
    result = nl.ndarray((columns, kv_heads, dim), dtype=query.dtype, buffer=nl.sbuf)
    for head in range(kv_heads):
        nisa.tensor_scalar(
            dst=result[:, head, :],
            data=mixed[head // each][:, head % each, :],
            op0=nl.multiply,
            operand0=inverse[:, head : head + 1],
        )
    for token in range(tokens):
        nisa.dma_copy(
            dst=out.ap(
                pattern=[[dim, group], [group * dim, kv_heads], [1, dim]],
                offset=(first * width + token) * heads * dim,
            ),
            src=result[token * group : (token + 1) * group, :, :],
        )


def piece_of(size: int, kv_heads: int, dim: int, dtype: str) -> int:
    """Tokens of a block that are loaded at a time."""
    row = kv_heads * dim * (4 if dtype == nl.float32 else 2)
    return max(1, min(size, PIECE // row))


def _queries(query: Tensor, first: int, count: int) -> Tensor:
    """Queries of some rows with D along the partitions: [D, count * Q, kv_heads' order of heads]."""
    rows, width, heads, dim = query.shape
    total = count * width * heads
    turned = nl.ndarray((dim, total), dtype=query.dtype, buffer=nl.sbuf)
    flat = query.reshape((rows * width * heads, dim))
    for start in range(0, total, PARTITIONS):
        part = min(PARTITIONS, total - start)
        begin = first * width * heads + start
        given = nl.ndarray((part, dim), dtype=query.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=given, src=flat[begin : begin + part, :])
        turn = nl.ndarray((dim, part), dtype=query.dtype, buffer=nl.psum)
        nisa.nc_transpose(dst=turn, data=given)
        nisa.tensor_copy(dst=turned[:, start : start + part], src=turn)
    return turned.reshape((dim, count * width, heads))


def places_of(tables: Tensor, begin: int, parts: int, gather: bool) -> Tensor:
    """Block numbers from the table's `begin` on: one a partition to gather by, or all on one partition to
    take singly."""
    total = tables.shape[0] * tables.shape[1]
    if gather:
        places = nl.ndarray((parts, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.dma_copy(dst=places, src=tables.reshape((total, 1))[begin : begin + parts, :])
        return places
    line = nl.ndarray((1, parts), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=line, src=tables.reshape((1, total))[:, begin : begin + parts])
    return line


def load_pages(dst: Tensor, pool: Tensor, places: Tensor, start: int, first: int, gather: bool) -> None:
    """Tokens start .. of the blocks at `places`, heads first .. of each, into dst [blocks, tokens, heads *
    D]."""
    blocks, size, heads, dim = pool.shape
    parts, span, part = dst.shape
    row = heads * dim
    flat = pool.reshape((blocks, size * row))
    offset = start * row + first * dim
    if gather:
        pattern = [[size * row, parts], [row, span], [1, part]]
        nisa.dma_copy(
            dst=dst, src=flat.ap(pattern=pattern, offset=offset, vector_offset=places, indirect_dim=0)
        )
    else:
        for block in range(parts):
            nisa.dma_copy(
                dst=dst[block : block + 1, :, :],
                src=flat.ap(
                    pattern=[[size * row, 1], [row, span], [1, part]],
                    offset=offset,
                    scalar_offset=places[:, block : block + 1],
                    indirect_dim=0,
                ),
            )


def _hidden(
    limits: Tensor, first: int, count: int, width: int, blocks: int, size: int, chunk: int, parts: int
) -> Tensor:
    """1 where a token may not see a place, 0 where it may: float32 [parts, size, count * Q].

    Places are numbered through the blocks of all rows that share the partitions, so a row sees those from its
    own first one to its position.
    """
    tokens = count * width
    place = nl.ndarray((parts, size), dtype=nl.float32, buffer=nl.sbuf)
    nisa.iota(place, pattern=[[1, size]], offset=chunk * PARTITIONS * size, channel_multiplier=size)
    places = place.ap(pattern=[[size, parts], [1, size], [0, tokens]])
    start = nl.ndarray((parts, tokens), dtype=nl.float32, buffer=nl.sbuf)
    nisa.iota(start, pattern=[[blocks * size, count], [0, width]], offset=0, channel_multiplier=0)
    last = nl.ndarray((parts, tokens), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(
        dst=last, data1=start, data2=limits[0:parts, first * width : first * width + tokens], op=nl.add
    )
    hidden = nl.ndarray((parts, size, tokens), dtype=nl.float32, buffer=nl.sbuf)
    across = [[tokens, parts], [0, size], [1, tokens]]
    nisa.tensor_tensor(dst=hidden, data1=places, data2=last.ap(pattern=across), op=nl.greater)
    if count > 1:
        before = nl.ndarray((parts, size, tokens), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=before, data1=places, data2=start.ap(pattern=across), op=nl.less)
        nisa.tensor_tensor(dst=hidden, data1=hidden, data2=before, op=nl.maximum)
    return hidden


def _scores(
    scores: Tensor, keys: Tensor, turned: Tensor, hidden: Tensor, chunk: int, head: int, start: int
) -> None:
    """Scores of one head's queries with a piece of the keys, into their place; hidden ones far below all."""
    parts, span, _ = keys.shape
    dim, tokens, heads = turned.shape
    _, _, kv_heads, size, _ = scores.shape
    group = heads // kv_heads
    columns = tokens * group
    queries = turned[:, :, head * group : (head + 1) * group]
    step = min(span, BANK // columns)
    for begin in range(0, span, step):
        some = min(step, span - begin)
        made = nl.ndarray((parts, some, tokens, group), dtype=nl.float32, buffer=nl.psum)
        for offset in range(0, some, TOGETHER):
            four = min(TOGETHER, some - offset)
            turn = nl.ndarray((dim, four, parts), dtype=keys.dtype, buffer=nl.psum)
            for token in range(four):
                nisa.nc_transpose(
                    dst=turn[:, token, :], data=keys[:, begin + offset + token, head * dim : (head + 1) * dim]
                )
            stationary = nl.ndarray((dim, four, parts), dtype=keys.dtype, buffer=nl.sbuf)
            if (begin // TOGETHER + offset // TOGETHER) % 2 == 0:
                nisa.activation(dst=stationary, op=nl.copy, data=turn)
            else:
                nisa.tensor_copy(dst=stationary, src=turn, engine=nisa.engine.vector)
            for token in range(four):
                nisa.nc_matmul(
                    dst=made[:, offset + token, :, :], stationary=stationary[:, token, :], moving=queries
                )
        at = start + begin
        nisa.scalar_tensor_tensor(
            dst=scores[0:parts, chunk, head, at : at + some, :].reshape((parts, some, tokens, group)),
            data=hidden.ap(
                pattern=[[size * tokens, parts], [tokens, some], [1, tokens], [0, group]], offset=at * tokens
            ),
            op0=nl.multiply,
            # Of products before they are scaled: beyond any sum of them, and its exponential is 0.
            operand0=-1.0e6,
            op1=nl.add,
            operand1=made,
        )


def _softmax(weights: Tensor, inverse: Tensor, scores: Tensor, head: int, dim: int) -> None:
    """One head's exponentials, and the reciprocal of each column's sum of them."""
    held, chunks, kv_heads, size, columns = scores.shape
    free = chunks * kv_heads * size * columns
    by_column = [[free, held], [1, columns], [kv_heads * size * columns, chunks], [columns, size]]
    in_order = [[free, held], [kv_heads * size * columns, chunks], [columns, size], [1, columns]]
    offset = head * size * columns
    most = nl.ndarray((held, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=most, op=nl.maximum, data=scores.ap(pattern=by_column, offset=offset), axis=(2, 3))
    turn = nl.ndarray((columns, held), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_transpose(dst=turn, data=most)
    peak = nl.ndarray((columns, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=peak, op=nl.maximum, data=turn, axis=(1,))
    # The transpose of a column that is repeated is that column in every partition.
    peaks = nl.ndarray((held, columns), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_transpose(dst=peaks, data=peak.ap(pattern=[[1, columns], [0, held]]))
    below = nl.ndarray((held, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=below, src=peaks)
    less = nl.ndarray((held, chunks, size, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(
        dst=less,
        data1=scores.ap(pattern=in_order, offset=offset),
        data2=below.ap(pattern=[[columns, held], [0, chunks], [0, size], [1, columns]]),
        op=nl.subtract,
    )
    nisa.activation(dst=weights[:, :, head, :, :], op=nl.exp, data=less, scale=dim**-0.5)
    part = nl.ndarray((held, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=part, op=nl.add, data=weights.ap(pattern=by_column, offset=offset), axis=(2, 3))
    ones = nl.ndarray((held, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(ones, value=1.0)
    total = nl.ndarray((columns, 1), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=part, moving=ones)
    nisa.reciprocal(dst=inverse[:, head : head + 1], data=total)


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
        Limit("Q * H / K at most 128", lambda size: size["Q"] * size["H"] // size["K"] <= 128),
        Limit("S at most 128", lambda size: size["S"] <= 128),
        Limit("R * Q at most 2048", lambda size: size["R"] * size["Q"] <= 2048),
        Limit("scores of a row in 64 KiB of a partition", lambda size: _scores_bytes(size) <= 65536),
    ),
    tolerance={"bfloat16": 2**-7, "float32": 4e-6},
)


def _scores_bytes(size: Mapping[str, int]) -> int:
    chunks = -(-size["B"] // PARTITIONS)
    return 4 * chunks * size["S"] * size["Q"] * size["H"]
