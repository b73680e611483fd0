"""How many bytes a graph moves, counted on graphs whose count is known."""

from pathlib import Path

import pytest
from hlo_builder import Builder

from outcrop_compile.hlo.fusion import Fused
from outcrop_compile.hlo.module import HloModule
from outcrop_compile.hlo.record import read_record, record_path
from outcrop_compile.hlo.traffic import traffic
from outcrop_compile.hlo.wire import Message

LOWERED = sorted((Path(__file__).parent / "lowered").glob("tp*/*.hlo.pb"))
WITH_KERNELS = sorted((Path(__file__).parent / "lowered").glob("kernels*/*.hlo.pb"))


def total(module: HloModule) -> int:
    return sum(read + written for read, written in Fused(module).traffic().values())


def test_a_product_reads_both_sides_and_writes_its_result() -> None:
    build = Builder()
    x, w = build.parameter("bf16", 8, 64), build.parameter("bf16", 64, 32)
    assert total(build.module(build.op("dot", (x, w), "f32", 8, 32))) == 8 * 64 * 2 + 64 * 32 * 2 + 8 * 32 * 4


def test_what_is_element_wise_is_read_by_the_product_itself() -> None:
    build = Builder()
    x, w = build.parameter("bf16", 8, 64), build.parameter("bf16", 64, 32)
    turned = build.op("transpose", (w,), "bf16", 32, 64)
    wide = build.op("convert", (x,), "f32", 8, 64)
    scaled = build.op("multiply", (wide, wide), "f32", 8, 64)
    module = build.module(build.op("dot", (scaled, turned), "f32", 8, 32))
    assert total(module) == 8 * 64 * 2 + 64 * 32 * 2 + 8 * 32 * 4


def test_a_slice_is_read_in_part_and_two_slices_never_more_than_the_whole() -> None:
    build = Builder()
    x = build.parameter("f32", 8, 64)
    low, high = build.op("slice", (x,), "f32", 8, 16), build.op("slice", (x,), "f32", 8, 64)
    first = build.op("custom-call", (low,), "f32", 1)
    both = build.op("concatenate", (low, high), "f32", 8, 80)
    second = build.op("custom-call", (both,), "f32", 1)
    traffic = Fused(build.module(first, second)).traffic()
    assert traffic == {first: (8 * 16 * 4, 4), second: (8 * 64 * 4, 4)}


def test_a_sum_that_several_read_is_written_once() -> None:
    """The residual stream: without a buffer, each layer would add up all layers before it again."""
    build = Builder()
    a, b = build.parameter("f32", 8, 64), build.parameter("f32", 8, 64)
    added = build.op("add", (a, b), "f32", 8, 64)
    readers = [build.op("custom-call", (added,), "f32", 1) for _ in range(3)]
    size = 8 * 64 * 4
    assert total(build.module(*readers)) == 2 * size + size + 3 * (size + 4)


def test_a_gather_moves_what_it_takes_even_if_that_is_more_than_there_is() -> None:
    build = Builder()
    pool, table = build.parameter("bf16", 10, 1024), build.parameter("s32", 40)
    taken = build.op("gather", (pool, table), "bf16", 40, 1024)
    assert Fused(build.module(taken)).traffic() == {taken: (40 * 1024 * 2 + 40 * 4, 40 * 1024 * 2)}


@pytest.mark.parametrize("aliased", [True, False])
def test_a_scatter_moves_its_rows_where_the_state_is_aliased_and_all_of_it_where_not(aliased: bool) -> None:
    build = Builder()
    pool, slots = build.parameter("bf16", 10, 4, 64), build.parameter("s32", 3, 1)
    rows = build.parameter("bf16", 3, 64)
    flat = build.op("reshape", (pool,), "bf16", 40, 64)
    written = build.op("scatter", (flat, slots, rows), "bf16", 40, 64)
    result = build.op("reshape", (written,), "bf16", 10, 4, 64)
    if aliased:
        build.aliases = {0: 0}
    read, wrote = Fused(build.module(result)).traffic()[written]
    rows_bytes, pool_bytes = 3 * 64 * 2, 40 * 64 * 2
    assert read == rows_bytes + 12 + (0 if aliased else pool_bytes)
    assert wrote == (rows_bytes if aliased else pool_bytes)


def test_temporaries_live_until_they_are_read_for_the_last_time() -> None:
    build = Builder()
    x = build.parameter("f32", 256)
    first = build.op("custom-call", (x,), "f32", 1000)
    second = build.op("custom-call", (first,), "f32", 500)
    third = build.op("custom-call", (second,), "f32", 100)
    assert Fused(build.module(third)).peak_bytes() == 4 * 1500


def test_a_small_constant_costs_nothing_and_a_large_one_is_read() -> None:
    build = Builder()
    small, large = build.op("constant", (), "f32", 8), build.op("constant", (), "f32", 4096)
    first = build.op("custom-call", (small,), "f32", 1)
    second = build.op("custom-call", (large,), "f32", 1)
    assert Fused(build.module(first, second)).traffic()[first] == (0, 4)
    assert Fused(build.module(first, second)).traffic()[second] == (4 * 4096, 4)


@pytest.mark.parametrize("path", LOWERED, ids=lambda path: f"{path.parent.name} {path.name}")
def test_the_models_own_count_by_hand(path: Path) -> None:
    """Every weight is streamed once, KV is gathered and then read: three times what the roofline has."""
    record, raw = read_record(record_path(path)), path.read_bytes()
    moved = traffic(HloModule(raw), record)
    sizes, bucket = record.sizes, record.bucket
    kv_heads = sizes.config.num_kv_heads // sizes.tp
    kv = bucket.rows * bucket.blocks * sizes.block_size * 2 * kv_heads * sizes.config.head_dim * 2
    matrices = sum(
        2 * one.shape[0] * one.shape[1]
        for one in record.parameters
        if one.role == "weight" and len(one.shape) == 2 and one.dtype == "bfloat16" and one.name != "embed"
    )
    # Tables of 64 rows are gathered from 65 blocks.
    assert moved.by_kind["KV gathers"] == 2 * kv + 2 * bucket.rows * bucket.blocks * 4
    assert moved.by_kind["matrix products"] >= matrices
    norms = 3 * sizes.config.hidden_size * 2
    assert moved.read == matrices + norms // sizes.tp + kv
    assert moved.counted == sum(moved.by_kind.values())
    # Without its aliases, every pool is copied: read and written once more.
    bare = Message(raw)
    bare.remove(8)
    pools = 2 * 65 * sizes.block_size * kv_heads * sizes.config.head_dim * 2
    copied = traffic(HloModule(bare.dump()), record).counted - moved.counted
    assert copied == pytest.approx(2 * pools, rel=0.01)


@pytest.mark.parametrize("path", WITH_KERNELS, ids=lambda path: path.parent.name)
def test_what_is_left_around_kernels_counts_by_hand(path: Path) -> None:
    """KV is none of the graph's any more, and of the weights only what no kernel reads: the projection back
    from attention and the head, or none of them in 8 bits."""
    record, raw = read_record(record_path(path)), path.read_bytes()
    moved = traffic(HloModule(raw), record)
    assert not moved.by_kind.keys() & {"KV gathers", "KV writes", "attention products", "top-k"}
    left = {one.name: 2 * one.shape[0] * one.shape[1] for one in record.parameters if one.dtype == "bfloat16"
            and one.name in ("layers.0.o", "head")}  # fmt: skip
    assert len(left) == (0 if record.sizes.dtype == "int8" else 2)
    products = moved.by_kind["matrix products"] - sum(left.values())
    assert 0 < products < 16_384  # activations, and the triangle of sampling
    # Without its aliases, what the kernels write in place counts as made anew.
    pools = [one for one in HloModule(raw).entry.instructions if one.in_place]
    assert [one.kernel for one in pools] == ["kv_cache_write"] * 2
    bare = Message(raw)
    bare.remove(8)
    fused, copied = (Fused(HloModule(data)) for data in (raw, bare.dump()))
    for one in pools:
        assert fused.moved(one)[1] == 0
        assert copied.moved(one)[1] == one.shape.bytes
    assert fused.peak_bytes() < copied.peak_bytes()


def test_what_a_kernel_reads_is_in_memory_and_other_results_are_not() -> None:
    """A kernel cannot be fused with what makes its operands, but views of them cost nothing."""
    build = Builder()
    x = build.parameter("f32", 8, 64)
    doubled = build.op("add", (x, x), "f32", 8, 64)
    view = build.op("reshape", (doubled,), "f32", 512)
    called = build.op("custom-call", (view,), "f32", 512)
    build.instructions[-1].set_octets(28, b"AwsNeuronCustomNativeKernel")
    module = build.module(build.op("negate", (called,), "f32", 512))
    assert Fused(module).traffic() == {
        doubled: (8 * 64 * 4, 8 * 64 * 4),
        called: (8 * 64 * 4, 8 * 64 * 4),
        module.entry.results[0].id: (512 * 4, 512 * 4),
    }
