"""Plans against published figures, against the model itself, and against their own suggestions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.engine.buckets import BucketTable
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.instances import HBM_PER_CORE, INSTANCES, collective_floor
from outcrop_compile.llama import KVSizes, PagedLlama, TensorParallel
from outcrop_compile.plan import Limit, Plan, PlanRefused, PlanRequest, make_plan
from outcrop_compile.plan.memory import kv_bytes_per_token, weight_bytes
from outcrop_compile.plan.roofline import step_time
from outcrop_compile.shapes import SHAPES, find_shape
from outcrop_compile.tensor_parallel import ShardingError, divide
from outcrop_compile.weights import parameter_shapes
from outcrop_kernels.registry import operations

LLAMA_8B, LLAMA_70B = SHAPES["Llama-3-8B"].config, SHAPES["Llama-3-70B"].config


def request(model: str = "Llama-3.1-8B", instance: str = "inf2.8xlarge", **options: object) -> PlanRequest:
    return PlanRequest(model, SHAPES[model].config, INSTANCES[instance], **options)


# -- published figures -----------------------------------------------------------------------------

# 16 GiB a core, weights divided, 2.5 to 4 GB left for code, scratch and rings.
CAPACITIES = {
    ("Llama-3-8B", "inf2.xlarge"): (2, 1, 78e3, 101e3),
    ("Llama-3-8B", "inf2.8xlarge"): (2, 1, 78e3, 101e3),
    ("Llama-3-8B", "inf2.48xlarge"): (8, 3, 0.68e6, 0.77e6),
    ("Llama-3-8B", "trn1.32xlarge"): (8, 4, 0.68e6, 0.77e6),
    ("Llama-3.3-70B", "inf2.48xlarge"): (24, 1, 0.17e6, 0.21e6),
    ("Llama-3.3-70B", "trn1.32xlarge"): (32, 1, 0.17e6, 0.21e6),
}


@pytest.mark.parametrize(("model", "instance"), CAPACITIES)
def test_kv_capacity(model: str, instance: str) -> None:
    tp, replicas, low, high = CAPACITIES[model, instance]
    plan = make_plan(request(model, instance))
    assert (plan.tp, plan.replicas) == (tp, replicas)
    assert 0.85 * low <= plan.kv_tokens <= 1.15 * high


# Milliseconds a decode step at 2,048 tokens of context for 1, 4, 8, 16 and 32 rows: the weights of 7.505e9
# parameters and 128 KiB a token, by 820 GB/s a chip (HBM) or 272 GB/s a core (DMA).
ROOFLINES = {
    ("Llama-3-8B", 2, "hbm"): (18.6, 19.6, 20.9, 23.5, 28.8),
    ("Llama-3-8B", 2, "dma"): (28.1, 29.6, 31.5, 35.5, 43.4),
    ("Llama-3-8B", 8, "hbm"): (4.66, 4.90, 5.23, 5.89, 7.20),
    ("Llama-3-8B", 8, "dma"): (7.02, 7.39, 7.88, 8.87, 10.85),
    ("Llama-3-8B", 24, "hbm"): (1.61, 1.85, 2.18, 2.83, 4.14),
    ("Llama-3-8B", 32, "hbm"): (1.23, 1.47, 1.80, 2.45, 3.76),
}


@pytest.mark.parametrize(("model", "tp", "ceiling"), ROOFLINES)
def test_roofline(model: str, tp: int, ceiling: str) -> None:
    layout = divide(SHAPES[model].config, tp)
    for rows, published in zip((1, 4, 8, 16, 32), ROOFLINES[model, tp, ceiling], strict=True):
        time = step_time(layout, Bucket(StepKind.DECODE, rows, 1, 64), 32, "bfloat16")
        assert getattr(time, ceiling) * 1e3 == pytest.approx(published, rel=0.02)
        assert time.hbm < time.dma < time.expected


@pytest.mark.parametrize(("tp", "published"), [(24, 14.1), (32, 10.6)])
def test_roofline_of_70b_with_one_row(tp: int, published: float) -> None:
    """Without context, as published."""
    time = step_time(divide(LLAMA_70B, tp), Bucket(StepKind.DECODE, 1, 1, 1), 1, "bfloat16")
    assert time.hbm * 1e3 == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(("tp", "published"), [(2, 162), (8, 40)])
def test_roofline_of_prefill(tp: int, published: float) -> None:
    """2,048 tokens at 190 TFLOPS a chip, without attention, as published: so with short contexts."""
    time = step_time(divide(LLAMA_8B, tp), Bucket(StepKind.PREFILL, 1, 2048, 1), 32, "bfloat16")
    assert time.hbm * 1e3 == pytest.approx(published, rel=0.1)


def test_int8_reads_half_as_much() -> None:
    bucket = Bucket(StepKind.DECODE, 1, 1, 1)
    times = [step_time(divide(LLAMA_8B, 2), bucket, 1, dtype).hbm for dtype in ("bfloat16", "int8")]
    assert times[0] / times[1] == pytest.approx(2, rel=0.01)


def test_padding_and_copies_are_told_apart_from_the_roofline() -> None:
    """24 ranks: 48 places for 32 query heads, and each key-value head three times."""
    plan = make_plan(request(instance="inf2.48xlarge", tp=24))
    matrices = 32 * (16 * 4096 + 16 * 4096 + 2 * 16 * 4096) * 128 + 32 * 3 * 16 * 4096
    assert plan.padding == pytest.approx(matrices / 7.505e9, rel=0.02)
    assert make_plan(request(instance="inf2.48xlarge", tp=8)).padding < 1e-3


def test_the_collective_floor_grows_with_the_ranks() -> None:
    floors = [collective_floor(tp) for tp in (1, 2, 4, 8, 16, 24, 32)]
    assert floors == sorted(floors)
    assert (floors[0], floors[1], floors[3], floors[6]) == (0, 0.15e-3, 2.45e-3, 5.1e-3)


# -- the model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tp", [1, 2, 8, 24, 32])
@pytest.mark.parametrize("model", ["Llama-3.2-1B", "Llama-3.1-8B"])
def test_weights_and_kv_are_the_models_own_buffers(model: str, tp: int) -> None:
    config = replace(SHAPES[model].config, num_layers=2)
    blocks, size, length = 5, 32, 512
    weights = {
        name: torch.empty(shape, dtype=torch.bfloat16, device="meta")
        for name, shape in parameter_shapes(config, tp, own_head=True).items()
    }
    llama = PagedLlama(
        config, weights, KVSizes(blocks, size, 8), operations("reference"),
        max_positions=length, parallel=TensorParallel(0, tp),
    )  # fmt: skip
    held = {buffer.data_ptr() or id(buffer): buffer for buffer in llama.buffers()}.values()
    found = sum(buffer.nbytes for buffer in held) - llama.last_token.nbytes
    kv = (blocks + 1) * size * kv_bytes_per_token(divide(config, tp), 2)
    assert found == weight_bytes(config, tp, "bfloat16", length) + kv


@pytest.mark.parametrize("model", SHAPES)
@pytest.mark.parametrize("tp", [1, 2, 4, 8, 16, 24, 32])
def test_every_model_can_be_divided_every_way(model: str, tp: int) -> None:
    config = SHAPES[model].config
    whole = sum(math.prod(shape) for shape in parameter_shapes(config).values())
    shard = sum(math.prod(shape) for shape in parameter_shapes(config, tp).values())
    assert whole <= shard * tp + config.vocab_size * config.hidden_size
    assert weight_bytes(config, tp, "int8", 8192) < weight_bytes(config, tp, "bfloat16", 8192)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "Llama-3-8B"),
        ("meta-llama/Llama-3.1-70B", "Llama-3.1-70B"),
        ("meta.llama3-2-1b-instruct-v1:0", "Llama-3.2-1B"),
        ("llama-3.3-70b-instruct", "Llama-3.3-70B"),
        ("Llama-3.3-8B", None),
        ("", None),
    ],
)
def test_names(name: str, found: str | None) -> None:
    shape = find_shape(name)
    assert (shape and shape.name) == found


@pytest.mark.parametrize(
    ("model", "parameters"),
    [("Llama-3-8B", 8.03e9), ("Llama-3.3-70B", 70.55e9), ("Llama-3.2-1B", 1.236e9), ("Llama-3.2-3B", 3.213e9),
     ("Llama-3.1-405B", 405.85e9)],
)  # fmt: skip
def test_parameters_are_as_many_as_published(model: str, parameters: float) -> None:
    shapes = parameter_shapes(SHAPES[model].config)
    assert sum(math.prod(shape) for shape in shapes.values()) == pytest.approx(parameters, rel=1e-3)


# -- what is admitted fits, what is refused is told what would ---------------------------------------

requests = st.builds(
    request,
    st.sampled_from(list(SHAPES)),
    st.sampled_from(list(INSTANCES)),
    tp=st.none() | st.sampled_from([1, 2, 4, 8, 16, 24, 32]),
    max_model_len=st.none() | st.integers(1, 131072),
    batch=st.integers(1, 64),
    block_size=st.sampled_from([1, 16, 32, 100, 128]),
    slots=st.booleans(),
    dtype=st.sampled_from(["bfloat16", "int8", "float32"]),
    guesses=st.integers(0, 15),
    reserve=st.none() | st.integers(0, 8 << 30),
)


def plan_of(wanted: PlanRequest) -> Plan | PlanRefused:
    try:
        return make_plan(wanted)
    except PlanRefused as refusal:
        return refusal


@settings(max_examples=60)
@given(requests)
def test_admitted_or_told_what_would_be(wanted: PlanRequest) -> None:
    found = plan_of(wanted)
    if isinstance(found, PlanRefused):
        for suggestion in found.suggestions:
            admitted = make_plan(suggestion.request)
            assert wanted.tp is None or admitted.tp == suggestion.request.tp
            assert suggestion.changes
            assert_fits(admitted)
        if wanted.reserve is None:  # else no instance may have room
            assert found.suggestions
        return
    assert_fits(found)


def assert_fits(plan: Plan) -> None:
    wanted, memory = plan.request, plan.memory
    parts = (memory.weights, memory.kv, memory.activations, memory.graphs, memory.runtime, memory.free)
    assert sum(parts) == HBM_PER_CORE
    assert min(parts) >= 0
    assert memory.weights == weight_bytes(wanted.config, plan.tp, wanted.dtype, wanted.length)
    assert plan.kv_tokens >= wanted.length
    assert plan.num_blocks >= wanted.batch
    assert plan.replicas * plan.tp <= wanted.instance.cores
    assert plan.tp in wanted.instance.degrees
    assert_covers(plan)


def assert_covers(plan: Plan) -> None:
    """Every step that the scheduler may make has a bucket."""
    wanted, table = plan.request, BucketTable(each.bucket for each in plan.buckets)
    longest = -(-wanted.length // wanted.block)
    for blocks in {1, longest // 2 or 1, longest}:
        for rows in {1, wanted.batch // 2 or 1, wanted.batch}:
            assert table.fits(StepKind.DECODE, rows, 1, blocks)
        for width in {1, table.max_width(StepKind.PREFILL)}:
            assert table.fits(StepKind.PREFILL, 1, width, max(blocks, -(-width // wanted.block)))
        if wanted.guesses:
            assert table.fits(StepKind.VERIFY, 1, wanted.guesses + 1, blocks)
    if wanted.slots:
        assert {each.bucket.blocks for each in plan.buckets} == {1}


def test_slot_mode_is_the_same_table_with_one_length() -> None:
    paged, slots = make_plan(request(batch=8)), make_plan(request(batch=8, slots=True))
    sizes = [{(each.bucket.rows, each.bucket.width) for each in plan.buckets} for plan in (paged, slots)]
    assert sizes[0] == sizes[1]
    assert slots.kv_tokens == slots.num_blocks * 8192
    assert slots.graphs < paged.graphs


SIX_CHIPS = "--instance inf2.24xlarge"
REFUSALS: list[tuple[dict[str, object], Limit, str, list[str]]] = [
    ({"tp": 1}, Limit.MEMORY, "weights take 15.0", ["--dtype int8", "--tp 2", f"{SIX_CHIPS} --tp 4"]),
    ({"tp": 4}, Limit.DEGREE, "its degrees are 1, 2", ["--tp 2", SIX_CHIPS]),
    ({"max_model_len": 200_000}, Limit.CONTEXT, "made for 131,072 tokens", ["--max-model-len 32768"]),
    ({"slots": True}, Limit.BATCH, "12 slots", ["--batch 12", "--max-model-len 2048", SIX_CHIPS]),
    ({"max_model_len": 131_072, "batch": 1}, Limit.LENGTH, "fewer than the 131,072 of one",
     ["--max-model-len 65536", "--dtype int8", SIX_CHIPS]),
    ({"model": "Llama-3.3-70B"}, Limit.MEMORY, "on 2 of inf2.8xlarge's", ["--instance inf2.48xlarge"]),
    ({"model": "Llama-3.1-405B"}, Limit.MEMORY, "take 378", ["--instance trn1.32xlarge --dtype int8"]),
    ({"reserve": 16 << 30}, Limit.MEMORY, "code and runtime 16.0", []),
]  # fmt: skip


@pytest.mark.parametrize(("options", "limit", "words", "changes"), REFUSALS)
def test_refusals(options: dict[str, object], limit: Limit, words: str, changes: list[str]) -> None:
    with pytest.raises(PlanRefused, match=words) as refused:
        make_plan(request(**options))
    assert refused.value.limit is limit
    assert [suggestion.changes for suggestion in refused.value.suggestions] == changes


@pytest.mark.parametrize(
    ("option", "value"), [("tp", 0), ("batch", 0), ("block_size", -1), ("max_model_len", 0), ("reserve", -1)]
)
def test_numbers_that_mean_nothing(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value}"):
        request(**{option: value})


def test_heads_that_cannot_be_divided_are_a_refusal() -> None:
    """Nine query and three key-value heads, as SmolLM2 has."""
    config = replace(LLAMA_8B, num_heads=9, num_kv_heads=3, head_dim=64, hidden_size=576)
    with pytest.raises(ShardingError):
        divide(config, 2)
    with pytest.raises(PlanRefused, match="num_kv_heads 3 cannot be divided among 2") as refused:
        make_plan(PlanRequest("small", config, INSTANCES["inf2.xlarge"], tp=2))
    assert refused.value.suggestions[0].changes == "--tp 1"
    assert make_plan(PlanRequest("small", config, INSTANCES["inf2.xlarge"])).tp == 1


def test_a_build_that_the_instance_is_too_small_for() -> None:
    assert make_plan(request(instance="inf2.xlarge")).build.workers == 0
    build = make_plan(request(instance="inf2.8xlarge")).build
    assert build.workers > 1
    assert build.shard == weight_bytes(LLAMA_8B, 2, "bfloat16", 8192)
