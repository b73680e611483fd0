"""Kernels whose instructions NeuronCore-v2 does not have: operands, types, operators, engines. The rule that
each breaks is marked at the line."""

from __future__ import annotations

from outcrop_kernels.nki.language import nisa, nki, nl


def loaded(x):
    """x [P, F] in SBUF."""
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    return tile


def given(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


@nki.jit
def an_operand_from_partition_16_on(x):
    tile = loaded(x)
    nisa.memset(tile[16:48, :], value=0.0)  # <- start-partition
    return given(tile)


@nki.jit
def sixty_five_partitions_from_the_middle(x):
    tile = loaded(x)
    low = nl.ndarray((65, 64), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=low, src=tile[32:97, :])  # <- start-partition
    return given(low)


@nki.jit
def forty_partitions_from_32_on(x):
    tile = loaded(x)
    nisa.activation(dst=tile[32:72, :], op=nl.exp, data=tile[32:72, :])  # <- start-partition
    return given(tile)


@nki.jit
def every_other_partition(x):
    tile = loaded(x)
    half = tile[0:128:2, :]  # <- access-pattern
    return given(half)


@nki.jit
def partitions_strided_by_an_access_pattern(x):
    tile = loaded(x)
    half = tile.ap(pattern=[[128, 64], [1, 64]], offset=0)  # <- access-pattern
    return given(half)


@nki.jit
def six_free_dimensions(x):
    tile = nl.ndarray((128, 729), dtype=x.dtype, buffer=nl.sbuf)
    steps = [[729, 128], [1, 2], [3, 2], [9, 2], [27, 2], [81, 2], [243, 2]]
    nisa.memset(tile.ap(pattern=steps, offset=0), value=0.0)  # <- access-pattern
    return given(tile)


@nki.jit
def a_matmul_of_129_columns(x):
    wide = nl.ndarray((128, 129), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(wide, value=0.0)
    total = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=wide, moving=loaded(x))  # <- matmul-shape
    return given(wide)


@nki.jit
def a_matmul_of_513_moving_columns(x):
    wide = nl.ndarray((128, 513), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(wide, value=0.0)
    total = nl.ndarray((64, 512), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=loaded(x), moving=wide)  # <- matmul-shape
    return given(wide)


@nki.jit
def a_matmul_whose_depths_differ(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile[0:64, :])  # <- matmul-shape
    return given(tile)


@nki.jit
def a_matmul_of_the_upper_half(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile[64:128, :], moving=tile[64:128, :])  # <- start-partition
    return given(tile)


@nki.jit
def a_matmul_in_tiles_of_32_rows(x):
    half = loaded(x)[0:32, :]
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    place, size = (32, 0), (32, 128)
    nisa.nc_matmul(total, half, half, tile_position=place, tile_size=size)  # <- later-chip
    return given(half)


@nki.jit
def a_matmul_into_sbuf(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)  # <- matmul-memory
    return given(total)


@nki.jit
def a_matmul_out_of_psum(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)
    again = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=again, stationary=total, moving=total)  # <- matmul-memory
    return given(tile)


@nki.jit
def a_matmul_out_of_hbm(x):
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=x, moving=loaded(x))  # <- matmul-memory
    return given(loaded(x))


@nki.jit
def a_matmul_of_integers(x):
    tile = nl.ndarray((128, 64), dtype=nl.int8, buffer=nl.sbuf)
    nisa.memset(tile, value=1)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)  # <- matmul-dtype
    return given(tile)


@nki.jit
def a_matmul_of_bfloat16_and_float32(x):
    tile = loaded(x)
    half = nl.ndarray((128, 64), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.tensor_copy(dst=half, src=tile)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=half, moving=tile)  # <- matmul-dtype
    return given(tile)


@nki.jit
def a_matmul_into_bfloat16(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.bfloat16, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)  # <- matmul-dtype
    return given(tile)


@nki.jit
def a_transpose_of_infinities(x):
    tile = loaded(x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=3.0e38, op1=nl.multiply, operand1=1e9)
    turned = nl.ndarray((64, 128), dtype=x.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=turned, data=tile)  # <- transpose-finite
    return given(tile)


@nki.jit
def dma_out_of_psum(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)
    out = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=total)  # <- psum-access
    return out


@nki.jit
def two_operands_in_psum(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)
    result = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=result, data1=total, data2=total, op=nl.add)  # <- psum-access
    return given(result)


@nki.jit
def gpsimd_on_psum(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile)
    result = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=total, engine=nisa.engine.gpsimd)  # <- psum-access
    return given(result)


@nki.jit
def sixty_four_bits(x):
    tile = nl.ndarray((128, 64), dtype="int64", buffer=nl.sbuf)  # <- dtype
    return given(tile)


@nki.jit
def eight_bit_floats(x):
    tile = nl.ndarray((128, 64), dtype=nl.float8_e4m3, buffer=nl.sbuf)  # <- dtype
    return given(tile)


@nki.jit
def an_iota_beyond_its_type(x):
    tile = nl.ndarray((128, 300), dtype=nl.uint8, buffer=nl.sbuf)
    nisa.iota(tile, pattern=[[1, 300]], offset=0, channel_multiplier=0)  # <- dtype
    return given(tile)


@nki.jit
def a_fraction_into_integers(x):
    tile = nl.ndarray((128, 64), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(tile, value=2.0)  # <- dtype
    return given(tile)


@nki.jit
def a_scalar_operand_of_integers(x):
    tile = loaded(x)
    one = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(one, value=1)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=one)  # <- dtype
    return given(tile)


@nki.jit
def a_predicate_of_floats(x):
    tile = loaded(x)
    nisa.tensor_copy_predicated(dst=tile, src=0.0, predicate=tile)  # <- dtype
    return given(tile)


@nki.jit
def a_transpose_that_casts(x):
    tile = loaded(x)
    turned = nl.ndarray((64, 128), dtype=nl.bfloat16, buffer=nl.psum)
    nisa.nc_transpose(dst=turned, data=tile)  # <- dtype
    return given(tile)


@nki.jit
def large_integers_through_float32(x):
    tile = nl.ndarray((128, 64), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(tile, value=16777217)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)  # <- integer-precision
    return given(tile)


@nki.jit
def broadcasting(x):
    tile = loaded(x)
    nisa.tensor_tensor(dst=tile, data1=tile, data2=tile[:, 0:1], op=nl.add)  # <- shape
    return given(tile)


@nki.jit
def a_reduction_of_a_middle_dimension(x):
    tile = loaded(x).reshape((128, 8, 8))
    total = nl.ndarray((128, 8), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=total, op=nl.add, data=tile, axis=1)  # <- shape
    return given(total)


@nki.jit
def a_copy_of_another_size(x):
    tile = nl.ndarray((128, 32), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)  # <- shape
    return given(tile)


@nki.jit
def a_division(x):
    tile = loaded(x)
    nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.divide)  # <- op
    return given(tile)


@nki.jit
def a_remainder(x):
    tile = loaded(x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.mod, operand0=3.0)  # <- op
    return given(tile)


@nki.jit
def an_activation_that_is_none(x):
    tile = loaded(x)
    nisa.activation(dst=tile, op=nl.maximum, data=tile)  # <- op
    return given(tile)


@nki.jit
def a_reduction_by_comparing(x):
    tile = loaded(x)
    total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=total, op=nl.greater, data=tile, axis=1)  # <- op
    return given(total)


@nki.jit
def an_activation_that_reduces_to_the_largest(x):
    tile = loaded(x)
    most = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation_reduce(tile, nl.exp, tile, reduce_op=nl.maximum, reduce_res=most)  # <- op
    return given(most)


@nki.jit
def the_root_of_a_negative(x):
    tile = loaded(x)
    nisa.memset(tile, value=-1.0)
    nisa.activation(dst=tile, op=nl.sqrt, data=tile)  # <- activation-range
    return given(tile)


@nki.jit
def a_scalar_bias(x):
    tile = loaded(x)
    nisa.activation(dst=tile, op=nl.exp, data=tile, bias=1.0)  # <- activation-bias
    return given(tile)


@nki.jit
def an_instruction_on_hbm(x):
    tile = loaded(x)
    nisa.tensor_copy(dst=tile, src=x)  # <- engine
    return given(tile)


@nki.jit
def a_copy_on_the_scalar_engine(x):
    tile = loaded(x)
    nisa.tensor_copy(dst=tile, src=tile, engine=nisa.engine.scalar)  # <- engine
    return given(tile)


@nki.jit
def a_power_on_the_vector_engine(x):
    tile = loaded(x)
    nisa.tensor_tensor(tile, tile, tile, op=nl.power, engine=nisa.engine.vector)  # <- engine
    return given(tile)


@nki.jit
def a_dma_that_transposes(x):
    tile = nl.ndarray((64, 128), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_transpose(dst=tile, src=x)  # <- later-chip
    return given(tile)


@nki.jit
def a_dma_on_a_chosen_engine(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x, engine=nisa.engine.scalar)  # <- later-chip
    return given(tile)


@nki.jit
def descriptors_by_hardware(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x, dge_mode=nisa.dge_mode.hwdge)  # <- later-chip
    return given(tile)


@nki.jit
def a_matmul_of_double_rows(x):
    tile = loaded(x)
    total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    mode = nisa.matmul_perf_mode.double_row
    nisa.nc_matmul(dst=total, stationary=tile, moving=tile, perf_mode=mode)  # <- later-chip
    return given(tile)


@nki.jit
def a_range_select(x):
    tile = loaded(x)
    nisa.range_select(dst=tile, on_true_tile=tile, bound0=tile, bound1=tile)  # <- later-chip
    return given(tile)


@nki.jit
def the_eight_largest_of_seven(x):
    tile = loaded(x)
    best = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.sbuf)
    nisa.max8(dst=best, src=tile[:, 0:7])  # <- size
    return given(best)


@nki.jit
def statistics_of_513(x):
    wide = nl.ndarray((128, 513), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(wide, value=0.0)
    found = nl.ndarray((128, 6), dtype=nl.float32, buffer=nl.sbuf)
    nisa.bn_stats(dst=found, data=wide)  # <- size
    return given(found)


@nki.jit
def a_transpose_of_33_on_the_vector_engine(x):
    tile = loaded(x)
    turned = nl.ndarray((32, 33), dtype=x.dtype, buffer=nl.sbuf)
    nisa.nc_transpose(dst=turned, data=tile[0:33, 0:32], engine=nisa.engine.vector)  # <- size
    return given(turned)
