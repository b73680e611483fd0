"""New keys or values into the rows of a paged pool, in place.

Tiling. 128 tokens at a time, a token to a partition: its row [kv_heads * D] goes into SBUF, what is not a
number becomes 0 there, and one DMA puts all rows at their slots.

SBUF, per partition: two rows in the pool's dtype, a mask of one byte an element and an index (at most 20 KiB
for 8 heads of 128 in float32). PSUM: nothing. Moved: each row once from HBM and once to it, and 4 bytes of
index; that is 2 * T * kv_heads * D * itemsize, where element scatters and copies of the pool move it whole.
Matrix work: none. Engines: four vector instructions of kv_heads * D elements for 128 tokens.

Counted for 32 tokens of one head of 128 (Llama 3.1 8B at tp 8): the vector engine decides with 0.6 us, 16 KiB
are 10 % of what the DMA engines' 272 GB/s move in that, 6 % of the HBM's 410. On a device it is rather the 2
us that any DMA takes, one after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.tokens import PARTITIONS

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor


@nki.jit
def kv_cache_write(pool: Tensor, slots: Tensor, values: Tensor, largest: float, gather: bool) -> Tensor:
    """pool [slots, kv_heads * D] with values [T, kv_heads * D] at slots [T] int32: the pool.

    largest: magnitude beyond which nothing counts as a number. gather: one DMA for 128 rows, whose addresses
    are in SBUF; otherwise one DMA a row, each with an address of its own. Slots may repeat (the sink's do):
    which of their values stays is open.
    """
    tokens, row = values.shape
    for start in range(0, tokens, PARTITIONS):
        count = min(PARTITIONS, tokens - start)
        given = nl.ndarray((count, row), dtype=values.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=given, src=values[start : start + count, :])
        # Comparisons with NaN are false, and a product with 0 would keep it: hence the copy by predicate.
        low = nl.ndarray((count, row), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=low, data=given, op0=nl.greater_equal, operand0=-largest)
        number = nl.ndarray((count, row), dtype=nl.uint8, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=number, data=given, op0=nl.less_equal, operand0=largest, op1=nl.multiply, operand1=low
        )
        kept = nl.ndarray((count, row), dtype=values.dtype, buffer=nl.sbuf)
        nisa.memset(kept, value=0.0)
        nisa.tensor_copy_predicated(dst=kept, src=given, predicate=number)
        if gather:
            place = nl.ndarray((count, 1), dtype=nl.int32, buffer=nl.sbuf)
            nisa.dma_copy(dst=place, src=slots.reshape((tokens, 1))[start : start + count, :])
            nisa.dma_copy(
                dst=pool.ap(pattern=[[row, count], [1, row]], vector_offset=place, indirect_dim=0), src=kept
            )
        else:
            line = nl.ndarray((1, count), dtype=nl.int32, buffer=nl.sbuf)
            nisa.dma_copy(dst=line, src=slots.reshape((1, tokens))[:, start : start + count])
            for token in range(count):
                nisa.dma_copy(
                    dst=pool.ap(
                        pattern=[[row, 1], [1, row]], scalar_offset=line[:, token : token + 1], indirect_dim=0
                    ),
                    src=kept[token : token + 1, :],
                )
    return pool


CONTRACT = Contract(
    arguments=(
        Argument("pool", "S F"),
        Argument("slots", "T", "int32"),
        Argument("values", "T F"),
    ),
    results=(Argument("pool", "S F"),),
    limits=(Limit("F numbers of a row in 16 KiB", lambda size: size["F"] * size["item"] <= 16384),),
    tolerance={"bfloat16": 0.0, "float32": 0.0},
)
