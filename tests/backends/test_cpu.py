"""The CPU backend on real weights: its answers are transformers' answers, in whatever company a request
runs."""

import numpy as np
import pytest
import torch
from demo import PATH, backend, prompts
from transformers import AutoModelForCausalLM

from outcrop.backends.cpu import CpuBackend
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop.engine.speculation import Drafter, NgramDrafter
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.weights import load_weights
from outcrop_kernels.cpu.native.library import available

TOKENS = 64


def generate(
    engine: CpuBackend,
    wanted: list[GenerationRequest],
    *,
    stagger: int = 0,
    narrow: bool = False,
    drafter: Drafter | None = None,
) -> tuple[dict[str, list[int]], EngineCore]:
    """Every answer. stagger: steps between one request's arrival and the next one's. narrow: prefill in
    chunks of 16 tokens."""
    core = EngineCore(engine, Interleave(), drafter=drafter)
    if narrow:
        core.scheduler.buckets.buckets = tuple(b for b in core.scheduler.buckets.buckets if b.width <= 16)
    answers: dict[str, list[int]] = {request.request_id: [] for request in wanted}
    pending, steps = list(wanted), 0
    while pending or not core.idle:
        while pending and (stagger == 0 or steps % stagger == 0):
            core.add(pending.pop(0))
            if stagger:
                break
        for delta in core.step():
            answers[delta.request_id] += delta.tokens
        steps += 1
    return answers, core


def requests(sampling: SamplingParams) -> list[GenerationRequest]:
    return [GenerationRequest(str(index), prompt, sampling) for index, prompt in enumerate(prompts())]


GREEDY = SamplingParams(TOKENS)


@pytest.fixture(scope="module")
def batched() -> dict[str, list[int]]:
    """All twenty at once: what the other situations are compared with."""
    answers, core = generate(backend(), requests(GREEDY))
    assert core.stats().preemptions == 0
    assert {len(tokens) for tokens in answers.values()} == {TOKENS}
    return answers


@pytest.fixture(scope="module")
def judge() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        PATH.parent, gguf_file=PATH.name, dtype=torch.float32, local_files_only=True
    ).eval()


@pytest.mark.filterwarnings("ignore")
def test_twenty_greedy_answers_are_transformers_answers(
    judge: torch.nn.Module, batched: dict[str, list[int]]
) -> None:
    """Token i is greedy if it is the largest logit after the prompt and tokens before i; holding for every
    i, that makes the answer the one transformers would give."""
    for index, prompt in enumerate(prompts()):
        answer = batched[str(index)]
        with torch.inference_mode():
            logits = judge(torch.tensor([prompt + answer])).logits[0]
        expected = logits[len(prompt) - 1 : -1].argmax(-1).tolist()
        assert answer == expected, f"prompt {index}"


@pytest.mark.filterwarnings("ignore")
def test_teacher_forced_logits_equal_transformers(judge: torch.nn.Module) -> None:
    engine = backend()
    tokens = [token for prompt in prompts() for token in prompt][:300]
    with torch.inference_mode():
        expected = judge(torch.tensor([tokens])).logits[0]
        blocks = np.arange(32, dtype=np.int32)[::-1].copy()
        worst = 0.0
        for start, end in ((0, 128), (128, 131), (131, 132), (132, 300)):
            positions = np.arange(start, end, dtype=np.int32)
            hidden = engine.model.hidden_states(
                torch.tensor([tokens[start:end]], dtype=torch.int32),
                torch.from_numpy(positions[None]),
                torch.from_numpy(blocks[positions // 16] * 16 + positions % 16),
                torch.from_numpy(blocks[None]),
            )
            logits = engine.model.logits(hidden)
            worst = max(worst, float((logits - expected[start:end]).abs().max()))
    assert worst <= 1e-3


def test_alone_and_at_depth_1_the_answers_are_the_same(batched: dict[str, list[int]]) -> None:
    engine = backend(max_rows=1, depth=1)
    assert generate(engine, requests(GREEDY))[0] == batched


def test_joining_late_changes_nothing(batched: dict[str, list[int]]) -> None:
    assert generate(backend(), requests(GREEDY), stagger=5)[0] == batched


def test_chunked_prefill_and_depth_1_change_nothing(batched: dict[str, list[int]]) -> None:
    assert generate(backend(depth=1), requests(GREEDY), narrow=True)[0] == batched


def test_prefix_hits_change_nothing(batched: dict[str, list[int]]) -> None:
    primed = [
        GenerationRequest(f"prime {index}", prompt, SamplingParams(1))
        for index, prompt in enumerate(prompts())
    ]
    engine = backend(max_rows=10)
    answers, core = generate(engine, primed + requests(GREEDY))
    assert core.stats().prefix_hits > 20 * 16
    assert {name: tokens for name, tokens in answers.items() if not name.startswith("prime")} == batched


def test_preemption_changes_nothing(batched: dict[str, list[int]]) -> None:
    block = 2 * 30 * 16 * 3 * 64 * 4
    engine = backend(kv_memory=70 * block)
    answers, core = generate(engine, requests(GREEDY))
    assert core.stats().preemptions > 3
    assert answers == batched


def test_seeded_sampling_does_not_depend_on_company() -> None:
    sampling = SamplingParams(24, temperature=0.8, top_p=0.9, top_k=50, seed=1234)
    together, _ = generate(backend(), requests(sampling)[:8])
    apart, _ = generate(backend(max_rows=1), requests(sampling)[:8])
    assert together == apart
    other, _ = generate(backend(), requests(SamplingParams(24, 0.8, 0.9, 50, seed=99))[:8])
    assert other != together


def test_bfloat16_runs_and_stays_close_to_float32() -> None:
    checkpoint = open_checkpoint(PATH)
    engine = CpuBackend(
        checkpoint.config, load_weights(checkpoint, dtype="bfloat16"),
        kv_memory=64 << 20, max_model_len=256, max_rows=4, block_size=16, depth=2, threads=None,
        native=available(),
    )  # fmt: skip
    assert engine.dtype == torch.bfloat16
    exact = backend()
    tokens = torch.tensor([prompts()[3]], dtype=torch.int32)
    positions = torch.arange(tokens.shape[1], dtype=torch.int32)[None]
    table = torch.arange(16, dtype=torch.int32)[None]
    with torch.inference_mode():
        ours, wanted = (
            each.model.logits(each.model.hidden_states(tokens, positions, positions, table))
            for each in (engine, exact)
        )
    agreement = torch.nn.functional.cosine_similarity(ours, wanted, dim=-1)
    assert float(agreement.min()) > 0.99


def test_a_row_of_nan_is_reported_and_its_memory_stays_clean() -> None:
    broken = dict(load_weights(open_checkpoint(PATH), dtype="float32"))
    broken["lm_head"], broken["embed"] = broken["embed"], broken["embed"].copy()
    broken["embed"][77] = np.nan
    engine = CpuBackend(
        open_checkpoint(PATH).config, broken,
        kv_memory=64 << 20, max_model_len=256, max_rows=4, block_size=16, depth=2, threads=None,
        native=available(),
    )  # fmt: skip
    core = EngineCore(engine, Interleave(), prefix_cache=False)
    good = prompts()[0]
    core.add(GenerationRequest("bad", [5, 77, 6, 7], SamplingParams(4)))
    core.add(GenerationRequest("good", good, SamplingParams(4)))
    finish = {}
    while not core.idle:
        for delta in core.step():
            finish[delta.request_id] = delta.finish
    assert finish == {"bad": "error", "good": "length"}
    for layer in engine.model.layers:
        assert bool(torch.isfinite(layer.key_pool).all())
        assert bool(torch.isfinite(layer.value_pool).all())


def test_too_little_kv_memory_is_named_with_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"kv_memory 1 MiB holds \d+ tokens.* give at least 23 MiB"):
        backend(kv_memory=1 << 20)


def test_without_a_limit_the_context_is_what_the_memory_holds() -> None:
    caps = backend(kv_memory=23 << 20, max_model_len=None).capabilities
    assert caps.max_model_len == caps.num_blocks * caps.block_size <= 512
    assert backend(kv_memory=1 << 30, max_model_len=None).capabilities.max_model_len == 8192


def test_verified_guesses_change_no_answer() -> None:
    """Greedy and sampled, of prompts that ask for what they hold already."""
    greedy, sampled = SamplingParams(24), SamplingParams(24, temperature=0.7, top_p=0.9, seed=5)
    wanted = [
        GenerationRequest(f"{name} {index}", prompt + prompt[4:] + prompt[4:20], sampling)
        for name, sampling in (("greedy", greedy), ("sampled", sampled))
        for index, prompt in enumerate(prompts()[:4])
    ]
    without, _ = generate(backend(max_rows=4), wanted)
    with_guesses, core = generate(backend(max_rows=4, guesses=3), wanted, drafter=NgramDrafter())
    assert with_guesses == without
    assert core.stats().accepted_tokens > 10
