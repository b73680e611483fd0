"""What the native kernels do beside the operations' common contract, which test_operations checks of them."""

import gc
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.cpu.native import library, operations
from outcrop_kernels.cpu.native.arena import Arena
from outcrop_kernels.cpu.native.library import NativeUnavailable, available, start
from outcrop_kernels.cpu.native.recording import Recorded
from outcrop_kernels.registry import Operations


@pytest.fixture(autouse=True, params=["portable", "portable_bf16", "avx2", "avx512", "avx512_bf16"])
def isa(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(11)
    try:
        return start(threads=2, isa=request.param)
    except NativeUnavailable as reason:
        pytest.skip(str(reason))


# -- matrix products -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 13, 64, 131])
@pytest.mark.parametrize(("features", "depth"), [(16, 2), (48, 30), (160, 576), (64, 1536)])
def test_a_packed_weight_multiplies_as_the_plain_one(
    isa: str, rows: int, features: int, depth: int, dtype: torch.dtype
) -> None:
    x, weight = torch.randn(rows, depth), torch.randn(features, depth).to(dtype)
    got = operations.linear(x, operations.pack(weight))
    if dtype is torch.bfloat16 and isa.endswith("bf16"):
        x = x.to(torch.bfloat16)  # the instruction takes nothing else
    exact = x.double() @ weight.double().T
    assert float((got - exact).abs().max()) < 1e-6 * depth + 1e-5


@pytest.mark.parametrize("shape", [(17, 8), (5, 6), (32, 7)])
def test_a_weight_that_does_not_divide_into_panels_works_too(shape: tuple[int, int]) -> None:
    x, weight = torch.randn(3, shape[1]), torch.randn(shape).to(torch.bfloat16)
    torch.testing.assert_close(operations.linear(x, operations.pack(weight)), x @ weight.float().T)


def test_a_row_is_the_same_alone_and_in_company() -> None:
    """Batching must not change an answer: each sum is made in the same order however many rows there are."""
    x, weight = torch.randn(40, 576), operations.pack(torch.randn(96, 576).to(torch.bfloat16))
    together = operations.linear(x, weight)
    for row in range(40):
        assert torch.equal(operations.linear(x[row : row + 1], weight)[0], together[row])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.nan])
def test_what_is_no_number_spoils_its_own_row_alone(poison: float) -> None:
    x, weight = torch.randn(3, 30), operations.pack(torch.randn(16, 30).to(torch.bfloat16))
    x[1, 29] = poison
    got = operations.linear(x, weight)
    assert not got[1].isfinite().any()
    assert got[[0, 2]].isfinite().all()


def test_keys_and_values_are_kept_in_the_pools_type() -> None:
    x, norm, weight, slots = torch.randn(2, 32), torch.rand(32), torch.randn(80, 32), torch.tensor([4, 1])
    slots, angles = slots.to(torch.int32), torch.randn(2, 4)
    turns = (angles.cos(), angles.sin(), 6, 1e-5)
    pools = [
        tuple(operations.kv_pool(2, 3, 2, 8, d) for _ in range(2)) for d in (torch.bfloat16, torch.float32)
    ]
    narrow, wide = (
        operations.cached_qkv(
            Operations(), x, norm, operations.pack(weight), None, *turns, (pool[0], pool[1]), slots
        )
        for pool in pools
    )
    for got, exact in zip(narrow[1:], wide[1:], strict=True):
        assert torch.equal(got, exact.to(torch.bfloat16))
        assert exact.abs().sum() > 0


def test_activations_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="float32 activations"):
        operations.swiglu(torch.zeros(1, 4, dtype=torch.bfloat16))


# -- attention -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "width", "heads", "kv_heads", "dim", "size"),
    [
        (3, 1, 9, 3, 64, 32),
        (2, 7, 8, 2, 64, 16),
        (1, 33, 4, 4, 16, 8),
        (2, 5, 6, 1, 20, 8),
        (1, 3, 8, 1, 128, 4),
        # Many queries: several tiles, chunks and a row that sees few of them.
        (2, 70, 9, 3, 64, 32),
        (1, 130, 2, 2, 32, 32),
        (1, 12, 8, 2, 128, 8),
    ],
)
def test_attention_over_pages_is_the_references(
    rows: int, width: int, heads: int, kv_heads: int, dim: int, size: int, dtype: torch.dtype
) -> None:
    blocks = 7
    keys, values = (torch.randn(rows * blocks + 1, size, kv_heads, dim).to(dtype) for _ in range(2))
    tables = torch.randperm(rows * blocks)[: rows * blocks].reshape(rows, blocks).to(torch.int32)
    starts = torch.randint(0, blocks * size - width, (rows, 1))
    positions = (starts + torch.arange(width)).to(torch.int32)
    query = torch.randn(rows, width, heads, dim)
    got = operations.paged_attention(query, keys, values, tables, positions)
    wanted = reference.paged_attention(query, keys.float(), values.float(), tables, positions)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("group", [1, 3, 4])
@pytest.mark.parametrize(("length", "size"), [(127, 32), (300, 16), (700, 48), (900, 512), (5000, 32)])
def test_a_long_row_is_attended_to_in_stretches(length: int, size: int, group: int) -> None:
    """The longest has more of them than are kept apart; blocks and stretches end at different places."""
    blocks = -(-length // size)
    keys, values = (torch.randn(2 * blocks, size, 2, 16) for _ in range(2))
    tables = torch.randperm(2 * blocks).reshape(2, blocks).to(torch.int32)
    positions = torch.tensor([[length - 2, length - 1], [length // 3, 0]], dtype=torch.int32)
    query = torch.randn(2, 2, 2 * group, 16)
    got = operations.paged_attention(query, keys, values, tables, positions)
    wanted = reference.paged_attention(query, keys, values, tables, positions)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-6)
    alone = operations.paged_attention(query[1:], keys, values, tables[1:, : blocks // 2 + 1], positions[1:])
    assert torch.equal(alone[0], got[1]), "a row's company must not change its answer"


def test_extreme_scores_leave_no_nan() -> None:
    keys, values = torch.full((2, 4, 1, 8), 300.0), torch.randn(2, 4, 1, 8)
    keys[0, 1] = -300.0
    query = torch.full((1, 1, 1, 8), 300.0)
    table, position = torch.tensor([[0]], dtype=torch.int32), torch.tensor([[3]], dtype=torch.int32)
    got = operations.paged_attention(query, keys, values, table, position)
    torch.testing.assert_close(got[0, 0, 0], values[0, [0, 2, 3], 0].mean(dim=0))
    many = operations.paged_attention(
        torch.full((1, 16, 1, 16), 300.0),
        torch.full((2, 16, 1, 16), 300.0),
        torch.full((2, 16, 1, 16), 2.0),
        table,
        torch.arange(16, dtype=torch.int32)[None],
    )
    torch.testing.assert_close(many, torch.full((1, 16, 1, 16), 2.0))


def test_what_lies_behind_a_rows_last_token_is_never_read_by_many_queries() -> None:
    """A block's unused places hold what an earlier owner left there, which may be anything."""
    keys, values = torch.full((3, 16, 1, 16), math.nan), torch.full((3, 16, 1, 16), math.inf)
    keys[0], values[0] = torch.randn(16, 1, 16), torch.randn(16, 1, 16)
    keys[1, :4], values[1, :4] = torch.randn(4, 1, 16), torch.randn(4, 1, 16)
    table, positions = torch.tensor([[0, 1]], dtype=torch.int32), torch.arange(20, dtype=torch.int32)[None]
    got = operations.paged_attention(torch.randn(1, 20, 1, 16), keys, values, table, positions)
    assert got.isfinite().all()


# -- sampling --------------------------------------------------------------------------------------


def test_the_first_of_equal_logits_is_chosen_wherever_it_lies() -> None:
    logits = torch.randn(50, 1003)
    for row in range(50):
        logits[row, torch.randint(0, 1003, (3,))] = 9.0
    greedy = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(50, 4)
    assert torch.equal(
        operations.sample(logits, greedy, torch.rand(50)), logits.argmax(dim=-1).to(torch.int32)
    )


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_the_largest_logits_are_found_whatever_their_order(order: str) -> None:
    """Each rank in turn, by a draw from equal odds (the temperature is so high) among the first so many."""
    vocab, ranks = 5003, torch.arange(reference.TOPK_CAP)
    logits = torch.randperm(vocab).float() if order == "random" else torch.arange(vocab).float()
    if order == "descending":
        logits = logits.flip(0)
    sampling = torch.tensor([[1e9, 0.0, 1.0, 0.0]]).expand(len(ranks), 4)
    draws = (ranks + 0.5) / len(ranks)
    got = operations.sample(logits.expand(len(ranks), -1), sampling, draws)
    assert torch.equal(got.long(), logits.topk(len(ranks)).indices)


def test_of_equal_logits_the_first_ones_are_candidates() -> None:
    count = 1000
    sampling = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(count, 4)
    got = operations.sample(torch.zeros(count, 3000), sampling, torch.arange(count) / count)
    assert set(got.tolist()) == set(range(reference.TOPK_CAP))


def test_a_row_that_is_not_a_number_still_has_a_token() -> None:
    sampling = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    got = operations.sample(torch.full((2, 40), math.nan), sampling, torch.rand(2))
    assert got.tolist() == [0, 0]


def test_a_recording_tells_what_its_time_goes_to() -> None:
    recorded = Recorded(lambda x: (operations.swiglu(operations.add(x, x)),))
    assert set(recorded.profile(np.ones((2, 8), dtype=np.float32), repeats=3)) == {"add", "swiglu"}


# -- recording -------------------------------------------------------------------------------------


def test_a_replay_computes_what_the_function_does_for_every_shape_and_value() -> None:
    weight, table, norm = operations.pack(torch.randn(64, 2)), torch.randn(9, 64), torch.ones(64)

    def network(x: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
        hidden = operations.add(operations.take(table, indices), operations.linear(x, weight))
        normed = operations.rms_norm(hidden, norm, 1e-5)
        return normed, operations.swiglu(normed)

    recorded = Recorded(network)
    for rows in (1, 5, 300, 5, 1):
        for _ in range(2):
            x, indices = torch.randn(rows, 2), torch.randint(0, 9, (rows,), dtype=torch.int32)
            for got, wanted in zip(recorded(x, indices), network(x, indices), strict=True):
                assert torch.equal(got, wanted)


def test_what_a_replay_would_leave_out_is_noticed() -> None:
    x = torch.randn(2, 8)
    with pytest.raises(RuntimeError, match="differs from the function"):
        Recorded(lambda x: (operations.swiglu(operations.add(x, x.abs())),))(x)
    with pytest.raises(ValueError, match="not of the arena"):
        Recorded(lambda x: (operations.swiglu(x) * 2,))(x)
    with pytest.raises(RuntimeError, match="would have to be copied"):
        Recorded(lambda x: (operations.swiglu(x.t()),))(x)
    assert torch.equal(Recorded(lambda x: (operations.swiglu(x),))(x)[0], operations.swiglu(x))


def test_a_failed_recording_leaves_operations_running() -> None:
    def failing(x: Tensor) -> tuple[Tensor, ...]:
        operations.swiglu(x)
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        Recorded(failing)(torch.randn(2, 8))
    assert float(operations.swiglu(torch.ones(1, 2))) == pytest.approx(1 / (1 + 2.718281828**-1), rel=1e-5)


# -- the arena -------------------------------------------------------------------------------------


def test_parts_in_use_never_overlap_and_memory_given_back_is_used_again() -> None:
    arena = Arena(64 * 16)
    first, second, third = (arena.floats(16 * 4) for _ in range(3))
    for index, part in enumerate((first, second, third)):
        part[:] = index
    assert [float(part.sum()) for part in (first, second, third)] == [0, 64, 128]
    address = second.ctypes.data
    del second, part
    gc.collect()
    assert arena.floats(16).ctypes.data == address
    assert arena.floats(16 * 4).ctypes.data == address


def test_neighbours_given_back_become_one_gap() -> None:
    arena = Arena(64 * 4)
    parts = [arena.floats(16) for _ in range(4)]
    with pytest.raises(MemoryError, match="no room for 16 floats"):
        arena.floats(16)
    for index in (0, 2, 1):
        parts[index] = None  # type: ignore[call-overload]
    gc.collect()
    assert len(arena.floats(48)) == 48


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "EXTENSION_SUFFIXES", [".none"])
    library.library.cache_clear()
    try:
        with pytest.raises(NativeUnavailable, match=r"install a C\+\+ compiler"):
            start(threads=1)
        assert not available()
    finally:
        library.library.cache_clear()
