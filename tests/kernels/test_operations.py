"""Every operation against a naive definition, and every implementation against the reference."""

import itertools
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from outcrop_kernels import reference
from outcrop_kernels.cpu import eager
from outcrop_kernels.cpu.native.library import NativeUnavailable, start
from outcrop_kernels.registry import Operations, Target, operations

TARGETS = (
    "reference",
    "neuron",
    "cpu",
    "native portable",
    "native avx2",
    "native avx512",
    "native avx512_bf16",
)


@pytest.fixture(params=TARGETS)
def ops(request: pytest.FixtureRequest) -> Operations:
    torch.manual_seed(3)
    target, _, isa = request.param.partition(" ")
    if isa:
        try:
            start(threads=3, isa=isa)
        except NativeUnavailable as reason:
            pytest.skip(str(reason))
    return operations(target)


def test_the_registry_and_the_cpu_implementations_name_the_same_operations() -> None:
    names = {field.name for field in fields(Operations)}
    assert set(eager.IMPLEMENTATIONS) <= names
    assert all(hasattr(reference, name) for name in names)


def test_rms_norm_divides_by_the_root_mean_square(ops: Operations) -> None:
    x, weight = torch.randn(5, 8), torch.randn(8)
    got = ops.rms_norm(x, weight, 1e-5)
    for row in range(5):
        rms = math.sqrt(sum(float(v) ** 2 for v in x[row]) / 8 + 1e-5)
        torch.testing.assert_close(got[row], x[row] / rms * weight)


@pytest.mark.parametrize("target", ["reference", "cpu"])
def test_rms_norm_computes_in_float32_and_answers_in_the_inputs_dtype(target: Target) -> None:
    ops = operations(target)
    x = (torch.randn(4, 64) * 1e3).to(torch.bfloat16)
    got = ops.rms_norm(x, torch.ones(64, dtype=torch.bfloat16), 1e-5)
    assert got.dtype == torch.bfloat16
    wide = x.float() / x.float().pow(2).mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(got.float(), wide, rtol=1e-2, atol=1e-2)


def test_rope_rotates_each_pair_by_its_angle(ops: Operations) -> None:
    x, angles = torch.randn(3, 2, 6), torch.randn(3, 3)
    got = ops.rope(x, angles.cos(), angles.sin())
    for token in range(3):
        for pair in range(3):
            turn = complex(math.cos(angles[token, pair]), math.sin(angles[token, pair]))
            for head in range(2):
                point = complex(x[token, head, pair], x[token, head, pair + 3]) * turn
                assert complex(got[token, head, pair], got[token, head, pair + 3]) == pytest.approx(
                    point, abs=1e-5
                )


def test_swiglu(ops: Operations) -> None:
    gate_up = torch.randn(4, 10)
    gate, up = gate_up[:, :5], gate_up[:, 5:]
    torch.testing.assert_close(ops.swiglu(gate_up), gate * torch.sigmoid(gate) * up)


def test_kv_write_puts_rows_at_their_slots_and_touches_nothing_else(ops: Operations) -> None:
    pool = torch.randn(4, 3, 2, 5)
    before = pool.clone()
    values = torch.randn(3, 2, 5)
    after = ops.kv_write(pool, torch.tensor([7, 0, 10], dtype=torch.int32), values)
    flat, old = after.reshape(12, 2, 5), before.reshape(12, 2, 5)
    for slot in range(12):
        expected = {7: values[0], 0: values[1], 10: values[2]}.get(slot, old[slot])
        assert torch.equal(flat[slot], expected)


def test_kv_write_never_stores_a_value_that_is_not_a_number(ops: Operations) -> None:
    values = torch.tensor([[[math.nan, math.inf, -math.inf, 1.0]]])
    after = ops.kv_write(torch.ones(1, 2, 1, 4), torch.tensor([1], dtype=torch.int32), values)
    assert after.reshape(2, 4).tolist() == [[1, 1, 1, 1], [0, 0, 0, 1]]


def test_queries_are_turned_and_keys_and_values_end_in_their_pools(ops: Operations) -> None:
    x, norm, weight = torch.randn(3, 32), torch.rand(32), torch.randn(80, 32)
    x[1, 3] = math.nan  # nothing but zeros of that row is to be kept
    angles, slots, heads = torch.randn(3, 4), int32([7, 0, 10]), 6
    turns = (angles.cos(), angles.sin(), heads, 1e-5)
    pools = (ops.kv_pool(4, 3, 2, 8, torch.float32), ops.kv_pool(4, 3, 2, 8, torch.float32))
    got = ops.cached_qkv(ops, x, norm, ops.pack(weight), None, *turns, pools, slots)
    query, *wanted = reference.fused_qkv(Operations(), x, norm, weight, None, *turns)
    torch.testing.assert_close(got[0], query, rtol=1e-4, atol=1e-5, equal_nan=True)
    for pool, values in zip(got[1:], wanted, strict=True):
        written = reference.kv_write(torch.zeros(4, 3, 2, 8), slots, values)
        torch.testing.assert_close(pool, written, rtol=1e-4, atol=1e-5)


def test_a_norm_of_a_sum_leaves_the_sum_too(ops: Operations) -> None:
    x, update, weight = torch.randn(5, 20), torch.randn(5, 20), torch.randn(20)
    total, normed = ops.add_rms_norm(ops, x, update, weight, 1e-5)
    assert torch.equal(total, x + update)
    torch.testing.assert_close(normed, reference.rms_norm(x + update, weight, 1e-5))


def test_pick_takes_the_token_of_each_row_at_its_place(ops: Operations) -> None:
    x = torch.randn(3 * 4, 7)
    got = ops.pick(x, torch.tensor([2, 0, 3], dtype=torch.int32))
    assert torch.equal(got, x[[2, 4, 11]])


def test_a_step_takes_the_tokens_it_is_given_or_those_that_were_kept(ops: Operations) -> None:
    kept, slots = int32([50, 51, 52, 53, 99]), int32([3, 0, 4])
    tokens = ops.step_tokens(int32([[1, 2], [3, 4], [5, 6]]), int32([[1, 0], [0, 0], [0, 0]]), kept, slots)
    assert tokens.dtype == torch.int32
    assert tokens.tolist() == [[53, 2], [3, 4], [5, 6]]


def test_tokens_are_kept_for_the_rows_that_sampled_alone(ops: Operations) -> None:
    kept = ops.keep_tokens(int32([50, 51, 52, 99]), int32([2, 0, 3]), int32([1, 0, 0]), int32([7, 8, 9]))
    assert kept[:3].tolist() == [50, 51, 7]


def int32(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def naive_attention(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, position: int) -> Tensor:
    """One token's attention over its row's blocks, position by position. q [heads, D]."""
    size, group = keys.shape[1], q.shape[0] // keys.shape[2]
    out = torch.zeros_like(q)
    for head in range(q.shape[0]):
        spots = [(int(table[at // size]), at % size, head // group) for at in range(position + 1)]
        scores = torch.stack([q[head] @ keys[spot] / math.sqrt(q.shape[1]) for spot in spots])
        for weight, spot in zip(torch.softmax(scores, 0), spots, strict=True):
            out[head] += weight * values[spot]
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
def test_paged_attention_sees_its_rows_past_and_nothing_else(
    ops: Operations, heads: int, kv_heads: int
) -> None:
    keys, values = torch.randn(9, 4, kv_heads, 8), torch.randn(9, 4, kv_heads, 8)
    tables = torch.tensor([[5, 2, 7], [0, 8, 8], [8, 8, 8]], dtype=torch.int32)
    positions = torch.tensor([[6, 7], [3, 0], [0, 0]], dtype=torch.int32)
    query = torch.randn(3, 2, heads, 8)
    got = ops.paged_attention(query, keys, values, tables, positions)
    assert got.shape == query.shape
    for row in range(3):
        for lane in range(2):
            expected = naive_attention(query[row, lane], keys, values, tables[row], int(positions[row, lane]))
            torch.testing.assert_close(got[row, lane], expected, rtol=1e-4, atol=1e-5)


def draw(
    ops: Operations,
    logits: list[float],
    draw: float,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float = 0.0,
) -> int:
    sampling = torch.tensor([[temperature, top_k, top_p, min_p]])
    return int(ops.sample(torch.tensor([logits]), sampling, torch.tensor([draw]))[0])


def test_greedy_takes_the_first_of_the_largest_logits(ops: Operations) -> None:
    assert draw(ops, [1.0, 5.0, 5.0, 2.0], 0.99, 0.0, 0, 1.0) == 1


def test_the_candidates_of_a_row_wider_than_the_chips_instruction(ops: Operations) -> None:
    logits = torch.randn(2, 3 * 16384)
    logits[1, 16384:32768] += 4  # all of a row's candidates in one piece of it
    values, ids = ops.candidates(logits, 256)
    expected, places = torch.topk(logits, 256)
    assert torch.equal(values, expected)
    assert torch.equal(ids, places.to(torch.int32))


def test_greedy_of_a_row_that_is_not_a_number_is_a_token_all_the_same(ops: Operations) -> None:
    assert 0 <= int(ops.greedy(torch.full((1, 7), math.nan))[0]) < 7


def test_a_draw_walks_the_cumulative_distribution_from_the_likeliest_token(ops: Operations) -> None:
    logits = [math.log(p) for p in (0.1, 0.6, 0.3)]
    assert [draw(ops, logits, u, 1.0, 0, 1.0) for u in (0.0, 0.59, 0.61, 0.89, 0.91, 0.9999999)] == [
        1,
        1,
        2,
        2,
        0,
        0,
    ]


def test_temperature_sharpens(ops: Operations) -> None:
    logits = [math.log(p) for p in (0.1, 0.6, 0.3)]
    assert draw(ops, logits, 0.79, 0.5, 0, 1.0) == 2  # 0.36 : 0.09 : 0.01
    assert draw(ops, logits, 0.78, 0.5, 0, 1.0) == 1
    assert draw(ops, logits, 0.999, 1e-6, 0, 1.0) == 1


def test_top_k_keeps_k_tokens(ops: Operations) -> None:
    logits = [math.log(p) for p in (0.1, 0.6, 0.3)]
    assert draw(ops, logits, 0.9999999, 1.0, 2, 1.0) == 2
    assert draw(ops, logits, 0.9999999, 1.0, 1, 1.0) == 1
    assert draw(ops, logits, 0.9999999, 1.0, 1000, 1.0) == 0


def test_top_p_keeps_the_shortest_prefix_that_reaches_it(ops: Operations) -> None:
    logits = [math.log(p) for p in (0.1, 0.6, 0.3)]
    assert draw(ops, logits, 0.9999999, 1.0, 0, 0.5) == 1
    assert draw(ops, logits, 0.9999999, 1.0, 0, 0.7) == 2
    assert draw(ops, logits, 0.9999999, 1.0, 0, 0.0) == 1  # never empty


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(ops: Operations) -> None:
    logits = [math.log(p) for p in (0.1, 0.6, 0.3)]
    assert draw(ops, logits, 0.9999999, 1.0, 0, 1.0, 0.1) == 0
    assert draw(ops, logits, 0.9999999, 1.0, 0, 1.0, 0.3) == 2
    assert draw(ops, logits, 0.9999999, 1.0, 0, 1.0, 0.6) == 1
    assert draw(ops, logits, 0.9999999, 1.0, 0, 1.0, 1.0) == 1
    assert draw(ops, logits, 0.9999999, 0.5, 0, 1.0, 0.2) == 2  # after temperature: 0.36 : 0.09 : 0.01


@pytest.mark.parametrize("min_p", [0.01, 0.1, 0.5])
def test_min_p_and_top_p_keep_the_tokens_that_transformers_keeps(ops: Operations, min_p: float) -> None:
    logits = torch.randn(1, 200) * 3
    temperature, top_p = 1.3, 0.9
    kept = MinPLogitsWarper(min_p)(None, TopPLogitsWarper(top_p)(None, logits / temperature))
    expected = set(torch.isfinite(kept[0]).nonzero()[:, 0].tolist())
    draws = (torch.arange(4000) + 0.5) / 4000
    sampling = torch.tensor([[temperature, 0.0, top_p, min_p]]).expand(4000, 4)
    assert set(ops.sample(logits.expand(4000, -1), sampling, draws).tolist()) == expected


def bits(rows: list[set[int]], vocab: int) -> Tensor:
    masks = np.zeros((len(rows), -(-vocab // 32) * 32), dtype=np.uint8)
    for row, tokens in enumerate(rows):
        masks[row, list(tokens)] = 1
    return torch.from_numpy(np.packbits(masks, axis=1, bitorder="little").view(np.int32))


def test_edits_are_penalty_then_bias_then_mask(ops: Operations) -> None:
    vocab = 77  # neither a multiple of 32 nor of 8
    logits, bias = torch.randn(3, vocab) * 5, torch.randn(3, vocab)
    penalty = torch.rand(3, vocab) + 0.5
    rows = [set(range(vocab)), {0, 31, 32, 63, 76}, set()]
    got = ops.edit_logits(logits.clone(), bits(rows, vocab), bias, penalty)
    for row in range(3):
        for token in range(vocab):
            logit, factor = float(logits[row, token]), float(penalty[row, token])
            edited = (logit / factor if logit > 0 else logit * factor) + float(bias[row, token])
            if token in rows[row]:
                assert float(got[row, token]) == pytest.approx(edited, rel=1e-5, abs=1e-6)
            else:
                assert float(got[row, token]) == pytest.approx(reference.FORBIDDEN)


def test_edits_that_nobody_wants_change_nothing(ops: Operations) -> None:
    logits = torch.randn(4, 50)
    assert torch.equal(ops.edit_logits(logits.clone(), None, None, None), logits)
    everything = torch.full((4, 2), -1, dtype=torch.int32)
    neutral = ops.edit_logits(logits.clone(), everything, torch.zeros(4, 50), torch.ones(4, 50))
    assert torch.equal(neutral, logits)


def test_the_repetition_penalty_is_transformers(ops: Operations) -> None:
    logits, tokens = torch.randn(2, 60) * 4, torch.randint(0, 60, (2, 25))
    penalty = torch.ones(2, 60).scatter(1, tokens, 1.3)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(tokens, logits)
    torch.testing.assert_close(ops.edit_logits(logits.clone(), None, None, penalty), expected)


@pytest.mark.parametrize("temperature", [0.0, 0.01, 1.0, 1000.0])
def test_a_forbidden_token_is_never_chosen(ops: Operations, temperature: float) -> None:
    """Whatever its logit, the temperature and the draw: three tokens are left of 40 that the model wants
    far more."""
    logits = torch.randn(1, 300)
    logits[0, :40] += 50
    edited = ops.edit_logits(logits, bits([{50, 99, 280}], 300), None, None)
    draws = torch.cat([torch.rand(500), torch.tensor([0.0, 1 - 2**-24])])
    sampling = torch.tensor([[temperature, 0.0, 1.0, 0.0]]).expand(502, 4)
    assert set(ops.sample(edited.expand(502, -1), sampling, draws).tolist()) <= {50, 99, 280}


def test_cpu_and_reference_edit_alike() -> None:
    logits, bias, penalty = torch.randn(5, 1000), torch.randn(5, 1000), torch.rand(5, 1000) + 0.5
    allowed = torch.randint(-(2**31), 2**31 - 1, (5, 32), dtype=torch.int32)
    allowed[2] = -1
    for mask, added, factor in itertools.product((None, allowed), (None, bias), (None, penalty)):
        assert torch.equal(
            operations("cpu").edit_logits(logits.clone(), mask, added, factor),
            operations("reference").edit_logits(logits, mask, added, factor),
        )


def test_the_reference_edit_keeps_the_chips_rules() -> None:
    """No 64-bit bulk integers, no infinity, no scatter, no sort."""
    args = (
        torch.randn(2, 70),
        torch.full((2, 3), 5, dtype=torch.int32),
        torch.randn(2, 70),
        torch.ones(2, 70),
    )
    graph = make_fx(reference.edit_logits)(*args).graph
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.numel() > 1:
            assert value.dtype in (torch.float32, torch.int32, torch.bool), node
        assert not any(word in str(node.target) for word in ("scatter", "sort", "index_put", "nonzero")), node
        assert not any(isinstance(arg, float) and math.isinf(arg) for arg in node.args), node


def test_samples_follow_the_distribution(ops: Operations) -> None:
    logits = torch.randn(1, 400) * 2
    expected = torch.softmax(logits[0], 0)
    count = 20_000
    sampling = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(count, 4)
    draws = (torch.arange(count) + 0.5) / count
    tokens = torch.cat(
        [ops.sample(logits.expand(1000, -1), sampling[:1000], part) for part in draws.split(1000)]
    )
    share = torch.bincount(tokens.long(), minlength=400) / count
    kept = torch.zeros(400, dtype=torch.bool)
    kept[logits[0].topk(reference.TOPK_CAP).indices] = True
    torch.testing.assert_close(share[kept], expected[kept] / expected[kept].sum(), rtol=0, atol=2e-3)
    assert share[~kept].sum() == 0


def test_the_reference_chooses_the_same_tokens_in_a_mixed_batch(ops: Operations) -> None:
    logits = torch.randn(64, 1000) * 3
    sampling = torch.stack(
        [
            torch.tensor([0.0, 0.3, 1.0, 0.9]).repeat(16),
            torch.tensor([0.0, 5.0]).repeat(32),
            torch.rand(64),
            torch.tensor([0.0, 0.0, 0.1, 0.0, 0.0, 0.6, 0.0, 0.0]).repeat(8),
        ],
        dim=1,
    )
    draws = torch.rand(64)
    assert torch.equal(ops.sample(logits, sampling, draws), reference.sample(logits, sampling, draws))


def test_the_peak_is_the_largest_magnitude_and_shows_what_is_not_finite(ops: Operations) -> None:
    x = torch.randn(6, 77)
    x[0, 50], x[1, 76] = -9.0, 8.0
    x[2, 3], x[3, 76], x[4, 40] = math.nan, math.inf, -math.inf
    got = ops.peak(x)
    assert got[:2].tolist() == [9.0, 8.0]
    assert not got[2:5].isfinite().any()
    assert got[5] == max(abs(float(value)) for value in x[5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_int8_is_a_product_with_the_numbers_that_codes_stand_for(
    ops: Operations, dtype: torch.dtype
) -> None:
    """In bfloat16 too, whose rounding of a dequantised matrix it does without."""
    weight, x = torch.randn(24, 64) * torch.logspace(-3, 3, 24)[:, None], torch.randn(5, 64).to(dtype)
    matrix = reference.quantise_channels(weight)
    got = ops.linear_int8(x, matrix.codes, matrix.scale)
    wanted = x.to(torch.float64) @ reference.dequantised(matrix).to(torch.float64).T
    assert got.dtype == dtype
    tolerance = 1e-6 if dtype is torch.float32 else 2**-7
    assert ((got.double() - wanted).abs() <= tolerance * (8 * matrix.scale[:, 0] * 127)).all()


def test_only_a_target_that_multiplies_them_keeps_matrices_quantised() -> None:
    matrix = reference.quantise_channels(torch.randn(4, 32))
    assert operations("neuron").pack(matrix) is matrix
    packed = operations("reference").pack(matrix)
    assert isinstance(packed, Tensor)
    torch.testing.assert_close(packed, reference.dequantised(matrix))


def test_a_row_is_finite_where_both_of_its_peaks_are(ops: Operations) -> None:
    a, b = torch.tensor([1.0, math.nan, 2.0, math.inf, 3e38]), torch.tensor([5.0, 1.0, math.inf, math.nan, 0])
    finite = ops.both_finite(a, b)
    assert finite.dtype == torch.int32
    assert finite.tolist() == [1, 0, 0, 0, 1]
