"""Kernels that NeuronCore-v2 or its compiler would not take: memory, addresses, loops, language. The
rule that each breaks is marked at the line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from tests.kernels.nki.simulator import illegal_instructions
from tests.kernels.nki.simulator.illegal_instructions import given, loaded

from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.simulator.root import Kernel


@nki.jit
def too_many_partitions(x):
    tile = nl.ndarray((256, 64), dtype=x.dtype, buffer=nl.sbuf)  # <- partitions
    return given(tile)


@nki.jit
def a_slice_beyond_the_end(x):
    tile = loaded(x)
    nisa.memset(tile[:, 32:96], value=0.0)  # <- view
    return given(tile)


@nki.jit
def a_slice_of_hbm_beyond_the_end(x):
    tile = nl.ndarray((16, 64), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x[120:136, :])  # <- view
    return given(tile)


@nki.jit
def an_access_pattern_beyond_hbm(x):
    tile = nl.ndarray((16, 64), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x.ap(pattern=[[64, 16], [1, 64]], offset=113 * 64))  # <- view
    return given(tile)


@nki.jit
def a_reshape_of_the_partitions(x):
    return given(loaded(x).reshape((64, 128)))  # <- view


@nki.jit
def an_access_pattern_of_a_view(x):
    tile = loaded(x)
    half = tile[:, 32:64]
    nisa.memset(half.ap(pattern=[[64, 128], [1, 32]], offset=0), value=0.0)  # <- view
    return given(tile)


@nki.jit
def an_access_pattern_out_of_its_partition(x):
    tile = loaded(x)
    nisa.memset(tile.ap(pattern=[[64, 64], [1, 64]], offset=32), value=0.0)  # <- view
    return given(tile)


@nki.jit
def a_partition_by_an_integer(x):
    tile = loaded(x)
    nisa.memset(tile[0, :], value=0.0)  # <- index
    return given(tile)


@nki.jit
def a_column_by_an_integer(x):
    tile = loaded(x)
    nisa.memset(tile[:, 3], value=0.0)  # <- index
    return given(tile)


@nki.jit
def a_tile_of_two_banks(x):
    total = nl.ndarray((128, 1024), dtype=nl.float32, buffer=nl.psum)  # <- psum-bank
    return given(total)


@nki.jit
def nine_banks_at_once(x):
    tile = loaded(x)
    totals = []
    for _ in range(9):
        total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)  # <- psum-budget
        nisa.nc_matmul(dst=total, stationary=tile, moving=tile)
        totals.append(total)
    result = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    for total in totals:
        nisa.tensor_copy(dst=result, src=total)
    return given(result)


@nki.jit
def a_matmul_onto_a_memset(x):
    tile = loaded(x)
    total = nl.zeros((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)  # <- psum-accumulate
    return given(tile)


@nki.jit
def a_sum_continued_after_it_was_read(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    result = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    for _ in range(2):
        nisa.nc_matmul(dst=total, stationary=tile, moving=tile)  # <- psum-accumulate
        nisa.tensor_copy(dst=result, src=total)
    return given(result)


@nki.jit
def a_sum_begun_in_a_part_of_its_tile(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total[:, 0:32], stationary=tile, moving=tile[:, 0:32])
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)  # <- psum-accumulate
    return given(tile)


@nki.jit
def a_tensor_larger_than_a_partition(x):
    tile = nl.ndarray((128, 50000), dtype=nl.float32, buffer=nl.sbuf)  # <- sbuf-budget
    return given(tile)


@nki.jit
def too_much_at_once(x):
    tiles = []
    for _ in range(3):
        tile = nl.ndarray((128, 16384), dtype=nl.float32, buffer=nl.sbuf)  # <- sbuf-budget
        nisa.memset(tile, value=0.0)
        tiles.append(tile)
    for tile in tiles:
        nisa.tensor_tensor(dst=tiles[0], data1=tiles[0], data2=tile, op=nl.add)
    return given(tiles[0])


@nki.jit
def a_read_of_what_was_not_written(x):
    tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[:, 0:63], src=x[:, 0:63])
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)  # <- uninitialised
    return given(tile)


@nki.jit
def a_read_of_psum_that_no_one_wrote(x):
    tile = loaded(x)
    total = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.tensor_tensor(dst=tile, data1=tile, data2=total, op=nl.add)  # <- uninitialised
    return given(tile)


@nki.jit
def a_read_of_hbm_that_no_one_wrote(x):
    kept = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=kept)  # <- uninitialised
    return given(tile)


@nki.jit
def a_carried_value_in_an_affine_loop(x):
    tile = loaded(x)
    for column in nl.affine_range(63):  # <- affine-range
        after = tile[:, column + 1 : column + 2]
        nisa.tensor_tensor(dst=after, data1=after, data2=tile[:, column : column + 1], op=nl.add)
    return given(tile)


@nki.jit
def a_first_iteration_that_initialises(x):
    tile = loaded(x)
    total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    for column in nl.affine_range(64):  # <- affine-range
        if column == 0:
            nisa.tensor_copy(dst=total, src=tile[:, 0:1])
        else:
            nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, column : column + 1], op=nl.add)
    return given(total)


@nki.jit
def a_second_iteration_that_needs_the_first(x):
    tile = loaded(x)
    for _ in nl.affine_range(1):
        for step in nl.affine_range(2):  # <- affine-range
            nisa.tensor_scalar(
                dst=tile, data=tile, op0=nl.multiply, operand0=2.0, op1=nl.add, operand1=float(step)
            )
    return given(tile)


@nki.jit
def a_loop_as_long_as_a_tensor_says(x):
    tile = loaded(x)
    for _ in nl.sequential_range(tile[0:1, 0:1]):  # <- static-bounds
        nisa.memset(tile, value=0.0)
    return given(tile)


@nki.jit
def a_loop_on_the_device(x):
    tile = loaded(x)
    for _ in nl.dynamic_range(4):  # <- static-bounds
        nisa.memset(tile, value=0.0)
    return given(tile)


@nki.jit
def a_branch_on_a_value(x):
    tile = loaded(x)
    if tile[0:1, 0:1] > 0:  # <- tile-value
        nisa.memset(tile, value=0.0)
    return given(tile)


@nki.jit
def an_index_from_a_tensor(x):
    tile = loaded(x)
    nisa.memset(tile[:, tile[0:1, 0:1] : 64], value=0.0)  # <- tile-value
    return given(tile)


@nki.jit
def a_gather_out_of_bounds(x, rows):
    index = loaded(rows)
    tile = nl.ndarray((4, 64), dtype=x.dtype, buffer=nl.sbuf)
    table = x.ap(pattern=[[64, 4], [1, 64]], vector_offset=index, indirect_dim=0)
    nisa.dma_copy(dst=tile, src=table)  # <- dma-bounds
    return given(tile)


@nki.jit
def a_gather_that_skips_and_is_read(x, rows):
    index = loaded(rows)
    tile = nl.ndarray((4, 64), dtype=x.dtype, buffer=nl.sbuf)
    table = x.ap(pattern=[[64, 4], [1, 64]], vector_offset=index, indirect_dim=0)
    nisa.dma_copy(dst=tile, src=table, oob_mode=nisa.oob_mode.skip)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)  # <- uninitialised
    return given(tile)


@nki.jit
def a_scatter_out_of_bounds(x, rows):
    index = loaded(rows)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    target = out.ap(pattern=[[64, 4], [1, 64]], vector_offset=index, indirect_dim=0)
    nisa.dma_copy(dst=target, src=loaded(x)[0:4, :])  # <- dma-bounds
    return out


@nki.jit
def nothing_to_skip(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x, oob_mode=nisa.oob_mode.skip)  # <- dma-bounds
    return given(tile)


@nki.jit
def a_row_by_a_scalar_out_of_bounds(x, rows):
    index = loaded(rows)
    tile = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.sbuf)
    row = x.ap(pattern=[[64, 1], [1, 64]], scalar_offset=index[0:1, :], indirect_dim=0)
    nisa.dma_copy(dst=tile, src=row)  # <- dma-bounds
    return given(tile)


@nki.jit
def a_gather_without_the_capability(x, rows):
    index = loaded(rows)
    tile = nl.ndarray((4, 64), dtype=x.dtype, buffer=nl.sbuf)
    table = x.ap(pattern=[[64, 4], [1, 64]], vector_offset=index, indirect_dim=0)
    nisa.dma_copy(dst=tile, src=table)  # <- indirect-dma
    return given(tile)


@nki.jit
def a_gather_by_floats(x):
    index = loaded(x)
    tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
    table = x.ap(pattern=[[64, 128], [1, 64]], vector_offset=index[:, 0:1], indirect_dim=0)
    nisa.dma_copy(dst=tile, src=table)  # <- dma-index
    return given(tile)


@nki.jit
def a_gather_with_too_few_indices(x, rows):
    index = loaded(rows)
    tile = nl.ndarray((8, 64), dtype=x.dtype, buffer=nl.sbuf)
    table = x.ap(pattern=[[64, 8], [1, 64]], vector_offset=index, indirect_dim=0)
    nisa.dma_copy(dst=tile, src=table)  # <- dma-index
    return given(tile)


@nki.jit
def a_gather_in_sbuf_out_of_bounds(x):
    tile = loaded(x)
    index = nl.ndarray((128, 64), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.memset(index, value=64)
    nisa.nc_n_gather(dst=tile, data=tile, indices=index)  # <- gather-bounds
    return given(tile)


@nki.jit
def an_engine_at_a_dynamic_address(x, rows):
    index = loaded(rows)
    tile = loaded(x)
    row = tile.ap(pattern=[[64, 128], [1, 1]], scalar_offset=index[0:1, :], indirect_dim=1)
    nisa.tensor_copy(dst=tile[:, 0:1], src=row)  # <- dynamic-address
    return given(tile)


@nki.jit
def two_dynamic_addresses(x, rows):
    index = loaded(rows)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    source = x.ap(pattern=[[64, 1], [1, 64]], scalar_offset=index[0:1, :], indirect_dim=0)
    target = out.ap(pattern=[[64, 1], [1, 64]], scalar_offset=index[0:1, :], indirect_dim=0)
    nisa.dma_copy(dst=target, src=source)  # <- dynamic-address
    return out


@nki.jit
def a_write_into_an_argument(x):
    tile = loaded(x)
    nisa.dma_copy(dst=x, src=tile)  # <- hbm-write
    return given(tile)


@nki.jit  # <- output
def an_output_in_private_memory(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
    nisa.dma_copy(dst=out, src=loaded(x))
    return out


@nki.jit  # <- output
def an_output_with_a_hole(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[0:127, :], src=loaded(x)[0:127, :])
    return out


@nki.jit  # <- output
def an_output_that_is_an_argument(x):
    return x


@nki.jit  # <- output
def an_output_twice(x):
    out = given(loaded(x))
    return out, out


@nki.jit  # <- output
def a_mutable_argument_that_is_not_returned(x):
    nisa.dma_copy(dst=x[0:1, :], src=loaded(x)[1:2, :])
    return given(loaded(x))


@nki.jit
def a_load_of_later_sdks(x):
    return given(nl.load(x))  # <- subset


@nki.jit
def an_explicit_accumulate(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile, accumulate=False)  # <- subset
    return given(tile)


@nki.jit
def a_view_method_of_later_sdks(x):
    tile = loaded(x)
    nisa.memset(tile.permute((0, 1)), value=0.0)  # <- subset
    return given(tile)


@nki.jit
def an_argument_that_is_not_there(x):
    tile = loaded(x)
    nisa.tensor_copy(dst=tile, src=tile, mask=None)  # <- subset
    return given(tile)


@nki.jit
def a_tensor_without_a_type(x):
    tile = nl.ndarray((128, 64), buffer=nl.sbuf)  # <- subset
    return given(tile)


@nki.jit  # <- language
def a_list_as_an_argument(x, sizes):
    return given(loaded(x))


@nki.jit
def an_identity_test(x):
    tile = loaded(x)
    if tile is None:  # <- language
        nisa.memset(tile, value=0.0)
    return given(tile)


@nki.jit
def a_comprehension(x):
    tiles = [loaded(x) for _ in range(2)]  # <- language
    return given(tiles[0])


@nki.jit
def a_helper_with_keyword_only_parameters(x):
    return _helped(x, rows=1)


def _helped(x, *, rows):  # <- language
    return given(loaded(x))


@nki.jit
def five_million_instructions(x):
    tile = loaded(x)
    for _ in range(5_000_001):
        nisa.memset(tile, value=0.0)  # <- instructions
    return given(tile)


@dataclass(frozen=True)
class Illegal:
    kernel: Any
    rows: tuple[int, ...] = ()
    """Of a second argument, indices [N, 1] int32."""
    options: dict[str, Any] = field(default_factory=dict)
    marked: Any = None
    """The function with the marked line, where it is not the kernel."""

    def arguments(self) -> tuple[torch.Tensor, ...]:
        x = torch.arange(128 * 64, dtype=torch.float32).reshape(128, 64) + 1
        rows = torch.tensor(self.rows, dtype=torch.int32)[:, None]
        return (x, rows) if self.rows else (x,)


_INDIRECT = {"indirect_dma": True}

SPECIAL = (
    Illegal(a_gather_out_of_bounds, (0, 5, 127, 128), _INDIRECT),
    Illegal(a_gather_that_skips_and_is_read, (0, 5, 127, -1), _INDIRECT),
    Illegal(a_scatter_out_of_bounds, (0, 5, 127, -1), _INDIRECT),
    Illegal(a_gather_with_too_few_indices, (0, 1, 2, 3), _INDIRECT),
    Illegal(two_dynamic_addresses, (3,)),
    Illegal(a_list_as_an_argument, (), {"sizes": [1, 2]}),
    Illegal(a_row_by_a_scalar_out_of_bounds, (128,)),
    Illegal(a_gather_without_the_capability, (0, 1, 2, 3)),
    Illegal(a_gather_by_floats, (), _INDIRECT),
    Illegal(an_engine_at_a_dynamic_address, (3,)),
    Illegal(a_mutable_argument_that_is_not_returned, (), {"mutable": ("x",)}),
    Illegal(a_helper_with_keyword_only_parameters, marked=_helped),
)


def illegal() -> list[Illegal]:
    """All kernels of both modules."""
    special = {one.kernel.__name__ for one in SPECIAL}
    found = {**globals(), **vars(illegal_instructions)}
    kernels = [one for name, one in found.items() if isinstance(one, Kernel) and name not in special]
    return [*SPECIAL, *(Illegal(kernel) for kernel in kernels)]
