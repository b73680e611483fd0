"""Single instructions: their values, their rounding, and what they leave alone."""

import pytest
import torch

from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.simulator import Refused, simulate


def _run(kernel, *arguments, **options):
    return simulate(kernel, *arguments, **options)[0]


def _load(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    return tile


def _store(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


# -- rounding ----------------------------------------------------------------------------------------


@nki.jit
def _cast(x, dtype):
    tile = _load(x)
    made = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=made, src=tile)
    return _store(made)


def test_bfloat16_and_float16_round_as_torch_does() -> None:
    torch.manual_seed(3)
    x = torch.randn(64, 300) * torch.exp2(torch.randint(-30, 15, (64, 300)))
    x[0, :4] = torch.tensor([float("inf"), -float("inf"), float("nan"), 1.00390625])
    for dtype in (torch.bfloat16, torch.float16):
        got = _run(_cast, x, str(dtype).removeprefix("torch."))
        assert got.dtype == dtype
        assert torch.equal(got.nan_to_num(7), x.to(dtype).nan_to_num(7))


def test_integers_round_to_even_and_saturate() -> None:
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 300.0, -300.0, 126.5]])
    assert _run(_cast, x, "int8").tolist() == [[0, 2, 2, 0, -2, 127, -128, 126]]
    assert _run(_cast, x, "uint8").tolist() == [[0, 2, 2, 0, 0, 255, 0, 126]]


@nki.jit
def _sum_of_two(a, b):
    tile = _load(a)
    nisa.tensor_tensor(dst=tile, data1=tile, data2=_load(b), op=nl.add)
    return _store(tile)


def test_an_engine_computes_in_float32_and_rounds_once() -> None:
    a = torch.full((1, 8), 256.0, dtype=torch.bfloat16)
    b = torch.full((1, 8), 1.0, dtype=torch.bfloat16)
    assert _run(_sum_of_two, a, b).tolist() == [[256.0] * 8]  # 257 is not a bfloat16.
    large = torch.full((4, 8), 2**30 + 1, dtype=torch.int32)
    assert torch.equal(_run(_sum_of_two, large, large), large + large)  # In integers, on GpSimd.


@nki.jit
def _sum_of_products(a, b, kind):
    """Of each row of a with each of b, one matmul after another."""
    total = nl.ndarray((a.shape[1], b.shape[1]), dtype=nl.float32, buffer=nl.psum)
    for row in range(a.shape[0]):
        nisa.nc_matmul(dst=total, stationary=_load(a[row : row + 1, :]), moving=_load(b[row : row + 1, :]))
    result = nl.ndarray(total.shape, dtype=kind, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=total)
    return _store(result)


def test_matmuls_into_one_tile_add_up_in_float32() -> None:
    """256 + 1 + 1 + 1 is 256 if sums are bfloat16, and 260 if they become it once."""
    a = torch.full((4, 16), 1.0, dtype=torch.bfloat16)
    b = torch.tensor([256.0, 1.0, 1.0, 1.0], dtype=torch.bfloat16)[:, None].repeat(1, 32)
    assert _run(_sum_of_products, a, b, "float32").unique().tolist() == [259.0]
    assert _run(_sum_of_products, a, b, "bfloat16").unique().tolist() == [260.0]


def test_a_product_within_a_matmul_is_summed_in_float32() -> None:
    a = torch.full((1, 16), 1.0078125, dtype=torch.bfloat16)
    assert _run(_sum_of_products, a, a, "float32").unique().tolist() == [1.0078125**2]


# -- what there is just enough of --------------------------------------------------------------------


@nki.jit
def _whole_partition(x, bytes_more):
    """176 KiB of SBUF in two tensors, and that many bytes more."""
    half = nl.ndarray((128, 90112), dtype=nl.uint8, buffer=nl.sbuf)
    other = nl.ndarray((128, 90112 + bytes_more), dtype=nl.uint8, buffer=nl.sbuf)
    nisa.memset(half[:, 0:1], value=1)
    nisa.memset(other[:, 0:1], value=2)
    nisa.tensor_copy(dst=half[:, 0:1], src=other[:, 0:1])
    return _store(half[:, 0:1])


def test_176_kib_of_a_partition_are_a_kernels() -> None:
    result, report = simulate(_whole_partition, torch.zeros(1, 1), 0)
    assert (report.sbuf_peak, int(result[0, 0])) == (180224, 2)
    with pytest.raises(Refused, match="sbuf-budget: 180225 bytes"):
        _run(_whole_partition, torch.zeros(1, 1), 1)


@nki.jit
def _banks_at_once(x, banks):
    tile = _load(x)
    totals = []
    for _ in range(banks):
        total = nl.ndarray((64, 512), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=total, stationary=tile[:, 0:64], moving=tile)
        totals.append(total)
    result = nl.ndarray((64, 512), dtype=nl.float32, buffer=nl.sbuf)
    for total in totals:
        nisa.tensor_copy(dst=result, src=total)
    return _store(result)


def test_psum_has_eight_banks() -> None:
    x = torch.ones(128, 512)
    assert simulate(_banks_at_once, x, 8)[1].psum_peak == 8
    with pytest.raises(Refused, match="psum-budget: 9 banks"):
        _run(_banks_at_once, x, 9)


@nki.jit
def _partitions(x, start, count):
    tile = _load(x)
    nisa.memset(tile[start : start + count, :], value=0.0)
    return _store(tile)


@pytest.mark.parametrize(
    ("count", "starts"),
    [(1, (0, 32, 64, 96)), (32, (0, 32, 64, 96)), (33, (0, 64)), (64, (0, 64)), (65, (0,)), (128, (0,))],
)
def test_an_operand_starts_where_a_quadrant_does(count: int, starts: tuple[int, ...]) -> None:
    for start in range(0, 129 - count, 16):
        if start in starts:
            assert _run(_partitions, torch.ones(128, 4), start, count).sum() == 4 * (128 - count)
        else:
            with pytest.raises(Refused, match="start-partition"):
                _run(_partitions, torch.ones(128, 4), start, count)


@nki.jit
def _halves(a, b):
    """a.T @ b with the depth in two halves, each in its rows of the array."""
    left, right = _load(a), _load(b)
    total = nl.ndarray((a.shape[1], b.shape[1]), dtype=nl.float32, buffer=nl.psum)
    for start in (0, 64):
        nisa.nc_matmul(
            dst=total,
            stationary=left[start : start + 64, :],
            moving=right[start : start + 64, :],
            tile_position=(start, 0),
            tile_size=(64, 128),
        )
    result = nl.ndarray(total.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=total)
    return _store(result)


def test_the_array_works_in_two_halves() -> None:
    a, b = torch.randn(128, 16), torch.randn(128, 32)
    torch.testing.assert_close(_run(_halves, a, b), a.T @ b, rtol=1e-5, atol=1e-5)


# -- choosing ----------------------------------------------------------------------------------------


@nki.jit
def _eight(x):
    tile = _load(x)
    best = nl.ndarray((x.shape[0], 8), dtype=x.dtype, buffer=nl.sbuf)
    places = nl.ndarray((x.shape[0], 8), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.max8(dst=best, src=tile)
    nisa.nc_find_index8(dst=places, data=tile, vals=best)
    rest = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.nc_match_replace8(dst=rest, data=tile, vals=best, imm=-9.0)
    return _store(best), _store(places), _store(rest)


def test_the_eight_largest_their_places_and_the_rest() -> None:
    torch.manual_seed(4)
    x = torch.randn(128, 300)
    best, places, rest = _run(_eight, x)
    values, ids = x.topk(8, dim=1)
    assert torch.equal(best, values)
    assert torch.equal(places.to(torch.int64), ids)
    assert torch.equal(rest, x.scatter(1, ids, -9.0))


def test_equal_values_take_successive_places() -> None:
    best, places, rest = _run(_eight, torch.tensor([[8.0, 8.0, 3.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]]))
    assert best.tolist() == [[8.0, 8.0, 8.0, 3.0, 1.0, 1.0, 1.0, 1.0]]
    assert places.tolist() == [[0, 1, 3, 2, 4, 5, 6, 7]]
    assert rest.tolist() == [[-9.0] * 8 + [1.0, 0.0]]


@nki.jit
def _match(data, vals):
    tile = _load(data)
    places = nl.ndarray((1, 8), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.nc_match_replace8(dst=tile, data=tile, vals=_load(vals), imm=0.0, dst_idx=places)
    return _store(places)


def test_replaced_duplicates_are_numbered_from_the_last_column_on() -> None:
    """The example of nki.isa.nc_match_replace8 in the AWS Neuron docs."""
    data = torch.tensor([[1.0, 2, 3, 4, 8, 8, 8, 8, 8, 8, 8]])
    vals = torch.tensor([[3.0, 8, 8, 8, 8, 8, 8, 8]])
    assert _run(_match, data, vals).tolist() == [[2, 10, 9, 8, 7, 6, 5, 4]]


@nki.jit
def _triangle(x):
    tile = _load(x)
    size = x.shape[1]
    nisa.affine_select(
        dst=tile,
        pattern=[[-1, size]],
        offset=0,
        channel_multiplier=1,
        on_true_tile=tile,
        on_false_value=-1.0,
        cmp_op=nl.greater_equal,
    )
    return _store(tile)


def test_affine_select_makes_a_causal_mask() -> None:
    x = torch.rand(100, 120)
    keys = torch.arange(120)[None, :]
    assert torch.equal(_run(_triangle, x), torch.where(torch.arange(100)[:, None] >= keys, x, -1.0))


@nki.jit
def _numbers(x):
    tile = nl.ndarray((4, 3, 2), dtype=nl.int32, buffer=nl.sbuf)
    nisa.iota(tile, pattern=[[10, 3], [-1, 2]], offset=5, channel_multiplier=100)
    return _store(tile)


def test_iota_counts_by_partition_and_by_step() -> None:
    wanted = [[[5 + 100 * p + 10 * i - j for j in range(2)] for i in range(3)] for p in range(4)]
    assert _run(_numbers, torch.zeros(1, 1)).tolist() == wanted


@nki.jit
def _where(x, y, mask):
    tile = _load(x)
    nisa.tensor_copy_predicated(dst=tile, src=_load(y), predicate=_load(mask))
    return _store(tile)


def test_a_predicated_copy_leaves_the_rest() -> None:
    x, y, mask = torch.rand(20, 30), torch.rand(20, 30), torch.randint(0, 2, (20, 30), dtype=torch.uint8)
    assert torch.equal(_run(_where, x, y, mask), torch.where(mask.bool(), y, x))


@nki.jit
def _picked(x, index):
    tile = nl.ndarray(index.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.nc_n_gather(dst=tile, data=_load(x), indices=_load(index))
    return _store(tile)


def test_a_gather_in_sbuf_is_within_partitions() -> None:
    x, index = torch.rand(20, 30), torch.randint(0, 30, (20, 7), dtype=torch.int32)
    assert torch.equal(_run(_picked, x, index.to(torch.uint32)), x.gather(1, index.to(torch.int64)))


@nki.jit
def _shuffled(x, mask):
    tile = _load(x)
    nisa.nc_stream_shuffle(dst=tile, src=tile, shuffle_mask=mask)
    return _store(tile)


def test_a_shuffle_moves_partitions_within_their_quadrants() -> None:
    x = torch.arange(64.0)[:, None].repeat(1, 3)
    got = _run(_shuffled, x, (0,) * 16 + (255,) * 16)
    assert got[:, 0].tolist() == [0.0] * 16 + list(range(16, 32)) + [32.0] * 16 + list(range(48, 64))


# -- addresses ---------------------------------------------------------------------------------------


@nki.jit
def _scatter(pool, rows, slots, skip):
    count, width = rows.shape
    places = _load(slots)
    target = pool.ap(pattern=[[width, count], [1, width]], vector_offset=places, indirect_dim=0)
    mode = nisa.oob_mode.error
    if skip:
        mode = nisa.oob_mode.skip
    nisa.dma_copy(dst=target, src=_load(rows), oob_mode=mode)
    return pool


def _scattered(slots: list[int], skip: bool = False) -> torch.Tensor:
    rows = torch.arange(len(slots), dtype=torch.float32)[:, None].repeat(1, 4) + 1
    index = torch.tensor(slots, dtype=torch.int32)[:, None]
    return _run(_scatter, torch.zeros(10, 4), rows, index, skip, mutable=("pool",), indirect_dma=True)


def test_a_scatter_writes_rows_of_a_mutable_argument() -> None:
    assert _scattered([7, 2, 9])[:, 0].tolist() == [0, 0, 2, 0, 0, 0, 0, 1, 0, 3]


def test_a_scatter_skips_what_lies_outside_when_told_to() -> None:
    assert _scattered([7, -1, 10], skip=True)[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    with pytest.raises(Refused, match="dma-bounds: index -1 in steps of 4"):
        _scattered([7, -1, 10])


@nki.jit
def _scatter_and_read(pool, rows, slots):
    count, width = rows.shape
    places = _load(slots)
    nisa.dma_copy(
        dst=pool.ap(pattern=[[width, count], [1, width]], vector_offset=places, indirect_dim=0),
        src=_load(rows),
    )
    again = nl.ndarray((1, width), dtype=pool.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=again, src=pool[3:4, :])
    return pool, _store(again)


def test_a_row_scattered_twice_may_not_be_read() -> None:
    assert _scattered([3, 5, 3])[5, 0] == 2
    twice, rows = torch.tensor([[3], [3]], dtype=torch.int32), torch.ones(2, 4)
    options = {"mutable": ("pool",), "indirect_dma": True}
    with pytest.raises(Refused, match="rows that a scatter wrote more than once"):
        _run(_scatter_and_read, torch.zeros(10, 4), rows, twice, **options)


@nki.jit
def _pages(pool, table):
    """Blocks [B, S, W] by number, one dynamic DMA each."""
    _, size, width = pool.shape
    count = table.shape[1]
    out = nl.ndarray((count, size, width), dtype=pool.dtype, buffer=nl.shared_hbm)
    numbers = _load(table)
    for one in nl.affine_range(count):
        page = nl.ndarray((size, width), dtype=pool.dtype, buffer=nl.sbuf)
        number = numbers[:, one : one + 1]
        block = pool.ap(pattern=[[width, size], [1, width]], scalar_offset=number, indirect_dim=0)
        nisa.dma_copy(dst=page, src=block)
        nisa.dma_copy(dst=out[one], src=page)
    return out


def test_blocks_by_a_scalar_index_need_no_capability() -> None:
    pool, table = torch.rand(9, 16, 4), torch.tensor([[8, 0, 3]], dtype=torch.int32)
    assert torch.equal(_run(_pages, pool, table), pool[table[0].long()])


@nki.jit
def _tokens(pool, slots):
    """Rows of a pool [B, S, W] by slot: the index counts along the dimension of the reshaped tensor."""
    blocks, size, width = pool.shape
    count = slots.shape[0]
    flat = pool.reshape((blocks * size, width))
    rows = nl.ndarray((count, width), dtype=pool.dtype, buffer=nl.sbuf)
    wanted = flat.ap(pattern=[[width, count], [1, width]], vector_offset=_load(slots), indirect_dim=0)
    nisa.dma_copy(dst=rows, src=wanted)
    return _store(rows)


def test_an_index_counts_along_the_reshaped_tensor() -> None:
    pool, slots = torch.rand(9, 16, 4), torch.tensor([[143], [0], [17], [143]], dtype=torch.int32)
    got = _run(_tokens, pool, slots, indirect_dma=True)
    assert torch.equal(got, pool.reshape(144, 4)[slots[:, 0].long()])


# -- operators ---------------------------------------------------------------------------------------


@nki.jit
def _two_operators(x, column):
    tile = _load(x)
    nisa.tensor_scalar(
        dst=tile,
        data=tile,
        op0=nl.subtract,
        operand0=_load(column),
        reverse0=True,
        op1=nl.maximum,
        operand1=0.25,
    )
    return _store(tile)


def test_two_operators_one_reversed() -> None:
    x, column = torch.rand(20, 30), torch.rand(20, 1)
    assert torch.equal(_run(_two_operators, x, column), (column - x).clamp(min=0.25))


@nki.jit
def _nibbles(x):
    tile = _load(x)
    low = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=low, data=tile, op0=nl.right_shift, operand0=4, op1=nl.bitwise_and, operand1=15)
    return _store(low)


def test_operators_on_bits() -> None:
    x = torch.randint(0, 256, (20, 30), dtype=torch.uint8)
    assert torch.equal(_run(_nibbles, x), x >> 4)


@nki.jit
def _activated(x, scale, bias, op):
    tile = _load(x)
    total = nl.ndarray((x.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation_reduce(
        dst=tile, op=op, data=tile, reduce_op=nl.add, reduce_res=total, scale=_load(scale), bias=_load(bias)
    )
    return _store(tile), _store(total)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("exp", torch.exp),
        ("silu", torch.nn.functional.silu),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("relu", torch.relu),
        ("square", torch.square),
        ("gelu", torch.nn.functional.gelu),
        ("gelu_apprx_tanh", lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        ("softplus", torch.nn.functional.softplus),
        ("erf", torch.erf),
        ("sign", torch.sign),
        ("abs", torch.abs),
        ("copy", lambda x: x),
    ],
)
def test_activations_scale_shift_and_sum(name: str, plain) -> None:
    x, scale, bias = torch.randn(50, 40), torch.randn(50, 1), torch.randn(50, 1)
    got, total = _run(_activated, x, scale, bias, getattr(nl, name))
    wanted = plain(x * scale + bias)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(total, wanted.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-4)


@nki.jit
def _summed_over_instructions(x):
    tile = _load(x)
    total = nl.ndarray((x.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
    command = nisa.reduce_cmd.reset_reduce
    for start in range(0, 64, 16):
        piece = tile[:, start : start + 16]
        nisa.activation(dst=piece, op=nl.copy, data=piece, reduce_op=nl.add, reduce_cmd=command)
        command = nisa.reduce_cmd.reduce
    nisa.activation(dst=tile, op=nl.copy, data=tile, reduce_res=total)
    return _store(total)


def test_the_scalar_engine_keeps_its_sums_from_one_instruction_to_the_next() -> None:
    x = torch.rand(30, 64)
    torch.testing.assert_close(_run(_summed_over_instructions, x), x.sum(dim=1, keepdim=True))


@nki.jit
def _left_early(x):
    tile = _load(x)
    for column in nl.affine_range(8):
        if column == 4:
            break
        nisa.memset(tile[:, column : column + 1], value=float(column))
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
    return _store(tile)


def test_a_loop_may_be_left_early() -> None:
    assert _run(_left_early, torch.zeros(3, 6), seeds=(1, 2))[2].tolist() == [1.0, 2.0, 3.0, 4.0, 1.0, 1.0]


@nki.jit
def _named(x):
    return _store(_load(x))


def test_arguments_have_to_be_of_types_the_chip_has() -> None:
    with pytest.raises(TypeError, match="int64 has no NKI type"):
        _run(_named, torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="target 'trn2'"):
        _run(_named, torch.zeros(2, 2), target="trn2")
    with pytest.raises(ValueError, match="mutable names 'pool'"):
        _run(_named, torch.zeros(2, 2), mutable=("pool",))


def test_an_instruction_outside_of_a_kernel_says_how_to_run_one() -> None:
    with pytest.raises(RuntimeError, match=r"simulate\(kernel"):
        nl.ndarray((1, 1), dtype=nl.float32, buffer=nl.sbuf)
