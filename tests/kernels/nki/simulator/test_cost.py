"""What the simulator counts of a kernel, against counts made by hand."""

import pytest
import torch
from tests.kernels.nki.simulator.tutorials import add, matmul_blocked, matmul_tiled, softmax

from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.simulator import Report, simulate


def _of(kernel, *arguments, **options) -> Report:
    return simulate(kernel, *arguments, seeds=(), **options)[1]


def test_a_tiled_matmul() -> None:
    half = torch.bfloat16
    report = _of(matmul_tiled, torch.zeros(512, 256, dtype=half), torch.zeros(512, 1024, dtype=half))
    # 2 x 2 tiles of the result, 4 steps of depth each.
    assert report.macs == 512 * 256 * 1024
    assert report.engines["tensor"].instructions == 16
    assert report.engines["tensor"].cycles == 16 * 512
    # For each of the 16 steps a piece of the left (128 x 128) and of the right (128 x 512), in bfloat16.
    assert report.dma.hbm_read == 16 * 2 * (128 * 128 + 128 * 512)
    assert report.dma.hbm_written == 2 * 256 * 1024
    assert report.dma.transfers == 16 * 2 + 4
    # A descriptor is a row of a piece: 128 numbers of the left; 512 of the right and of the result.
    assert report.dma.descriptors == {256: 16 * 128, 1024: 16 * 128 + 4 * 128}
    # Out of PSUM, 512 columns at a time.
    assert report.engines["vector"].cycles == 4 * 512
    assert report.instructions == 16 + 36 + 4
    # The two pieces, or the rounded result; one sum.
    assert (report.sbuf_peak, report.psum_peak) == (2 * 128 + 2 * 512, 1)


def test_a_blocked_matmul_reads_the_right_side_once() -> None:
    half = torch.bfloat16
    report = _of(matmul_blocked, torch.zeros(512, 256, dtype=half), torch.zeros(512, 1024, dtype=half))
    assert report.dma.hbm_read == 2 * (512 * 256 + 512 * 1024)
    assert report.engines["scalar"].cycles == 4 * 512
    # All of the right, a piece of the left, a row of results.
    assert report.sbuf_peak == 2 * (4 * 1024 + 4 * 128 + 1024)


def test_float32_takes_the_tensor_engine_four_times_as_long() -> None:
    report = _of(matmul_tiled, torch.zeros(128, 128), torch.zeros(128, 512))
    assert report.engines["tensor"].cycles == 4 * 512


def test_a_softmax_by_engine() -> None:
    report = _of(softmax, torch.zeros(100, 333))
    # Peak and product along 333 columns each; the reciprocal of one number has the least cycles.
    assert report.engines["vector"].cycles == 333 + 333 + 64
    # The exponentials, and reading the sums out.
    assert report.engines["scalar"].cycles == 333 + 64
    assert report.engines["scalar"].instructions == 2
    assert report.dma.descriptors == {333 * 4: 200}
    # The input, its exponentials and the peak, while the first become the second.
    assert report.sbuf_peak == 4 * (333 + 333 + 1)


def test_an_addition_is_bound_by_dma() -> None:
    report = _of(add, torch.zeros(256, 1024), torch.zeros(256, 1024))
    moved = 3 * 4 * 256 * 1024
    busy = report.engine_seconds()
    assert busy["dma"] == pytest.approx(moved / 272e9)
    assert busy["hbm"] == pytest.approx(moved / 410e9)
    assert busy["vector"] == pytest.approx(4 * 2 * 512 / 1.12e9)
    assert report.bound == "dma"
    assert report.seconds == busy["dma"]
    assert report.dma_share == pytest.approx(1.0)
    assert report.hbm_share == pytest.approx(272 / 410)


@nki.jit
def _columns(x):
    """The first column of x [128, W] as a row: a descriptor for every number."""
    out = nl.ndarray((1, 128), dtype=x.dtype, buffer=nl.shared_hbm)
    line = nl.ndarray((1, 128), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=line, src=x[:, 0:1])
    nisa.dma_copy(dst=out, src=line)
    return out


def test_scattered_numbers_cost_a_descriptor_each() -> None:
    report = _of(_columns, torch.zeros(128, 16))
    assert report.dma.descriptors == {4: 128, 512: 1}
    # What is below 512 bytes costs 512.
    assert report.dma.seconds == pytest.approx(129 * 512 / 272e9)
    assert report.dma_share == pytest.approx(1024 / (129 * 512))


@nki.jit
def _rows_by_index(table, index):
    count, width = index.shape[0], table.shape[1]
    out = nl.ndarray((count, width), dtype=table.dtype, buffer=nl.shared_hbm)
    places = nl.ndarray((count, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=places, src=index)
    rows = nl.ndarray((count, width), dtype=table.dtype, buffer=nl.sbuf)
    pages = table.ap(pattern=[[width, count], [1, width]], vector_offset=places, indirect_dim=0)
    nisa.dma_copy(dst=rows, src=pages)
    nisa.dma_copy(dst=out, src=rows)
    return out


def test_a_gather_has_a_descriptor_made_for_every_row() -> None:
    index = torch.arange(40, dtype=torch.int32)[:, None]
    report = _of(_rows_by_index, torch.zeros(100, 256), index, indirect_dma=True)
    assert report.dma.dynamic == 40
    assert report.dma.descriptors == {4: 40, 1024: 80}
    assert report.dma.hbm_read == 40 * 4 + 40 * 1024


@nki.jit
def _on_gpsimd(x):
    tile = nl.ndarray(x.shape, dtype=nl.int32, buffer=nl.sbuf)
    nisa.iota(tile, pattern=[[1, 200]], offset=0, channel_multiplier=0)
    nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
    flags = nl.ndarray(x.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.memset(flags, value=0.0)
    nisa.tensor_copy(dst=flags, src=tile)
    out = nl.ndarray(x.shape, dtype=nl.bfloat16, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=flags)
    return out


def test_integers_go_to_gpsimd_which_takes_turns_with_the_vector_engine() -> None:
    report = _of(_on_gpsimd, torch.zeros(128, 200))
    # iota starts in 150 cycles; two inputs take two cycles an element.
    assert report.engines["gpsimd"].cycles == 150 + 200 + 2 * 200
    # Zeros of bfloat16 are written two a cycle.
    assert report.engines["vector"].cycles == 100 + 200
    busy = report.engine_seconds()
    assert busy["vector+gpsimd"] == pytest.approx(750 / 1.4e9 + 300 / 1.12e9)


# -- waiting for each other --------------------------------------------------------------------------

START, RESULT = 1.3e-6, 100
"""Seconds until a DMA moves, and cycles until a result can be read."""


@nki.jit
def _one_after_another(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
    nisa.activation(dst=tile, op=nl.exp, data=tile)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_what_depends_on_each_other_takes_turns() -> None:
    report = _of(_one_after_another, torch.zeros(128, 512))
    moving = 128 * 512 * 4 / 272e9
    vector, scalar = (512 + RESULT) / 1.12e9, (512 + RESULT) / 1.4e9
    assert report.scheduled_seconds == pytest.approx(START + moving + vector + scalar + START + moving)


@nki.jit
def _out_of_psum(x):
    """A product that the vector and the scalar engine copy half of each."""
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=tile[:, 0:128], moving=tile)
    low = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.sbuf)
    high = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=low, src=total[:, 0:256], engine=nisa.engine.vector)
    nisa.activation(dst=high, op=nl.copy, data=total[:, 256:512])
    nisa.activation(dst=high, op=nl.copy, data=high)
    out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=high)
    return out


def test_vector_and_scalar_engine_take_turns_in_psum() -> None:
    report = _of(_out_of_psum, torch.ones(128, 512))
    copies = 256 / 1.12e9 + 256 / 1.4e9
    assert report.engine_seconds()["psum"] == pytest.approx(copies)
    load, product = START + 128 * 512 * 4 / 272e9, (4 * 512 + RESULT) / 2.8e9
    again = (2 * RESULT + 256) / 1.4e9  # what the first copy of the scalar engine made, once more
    store = START + 128 * 256 * 4 / 272e9
    assert report.scheduled_seconds == pytest.approx(load + product + copies + again + store)


@nki.jit
def _side_by_side(x, tiles):
    """Tile after tile through the vector engine, each in buffers of its own."""
    rows, width = x.shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for tile in range(tiles):
        part = nl.ndarray((rows, width // tiles), dtype=x.dtype, buffer=nl.sbuf)
        columns = nl.ds(tile * (width // tiles), width // tiles)
        nisa.dma_copy(dst=part, src=x[:, columns])
        nisa.tensor_scalar(dst=part, data=part, op0=nl.add, operand0=1.0)
        nisa.dma_copy(dst=out[:, columns], src=part)
    return out


def test_loads_run_ahead_of_their_use() -> None:
    report = _of(_side_by_side, torch.zeros(128, 8192), 16)
    piece = 128 * 512 * 4 / 272e9
    # All moves at the full bandwidth; at the end the last tile is added to and stored.
    least, most = 32 * piece, 32 * piece + 2 * START + piece + (512 + RESULT) / 1.12e9
    assert least <= report.scheduled_seconds <= most


@nki.jit
def _chain_on_one_engine(x, steps):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(tile, value=0.0)
    for _ in range(steps):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_small_instructions_that_read_each_other_wait_for_results() -> None:
    report = _of(_chain_on_one_engine, torch.zeros(128, 8), 50)
    store = START + 128 * 512 / 272e9
    assert report.scheduled_seconds == pytest.approx(51 * (64 + RESULT) / 1.12e9 + store)
