"""Every backend: its answers are transformers' answers, in whatever company a request runs."""

from dataclasses import replace

import demo
import numpy as np
import pytest
import torch
from demo import Make, Weights, prompts
from examples import thorough
from generation import generate, requests

from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop.engine.speculation import NgramDrafter

TOKENS = 64
FEW = TOKENS if thorough() else 24
GREEDY, BRIEF = SamplingParams(TOKENS), SamplingParams(FEW)
"""The answers that are compared with transformers', and their beginnings, which are compared with them."""


@pytest.fixture(scope="module")
def batched(make: Make) -> dict[str, list[int]]:
    """All twenty at once: what the other situations are compared with."""
    answers, core = generate(make(), requests(GREEDY))
    assert core.stats().preemptions == 0
    assert {len(tokens) for tokens in answers.values()} == {TOKENS}
    return answers


@pytest.fixture(scope="module")
def begun(batched: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: tokens[:FEW] for name, tokens in batched.items()}


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


def test_alone_and_at_depth_1_the_answers_are_the_same(make: Make, begun: dict[str, list[int]]) -> None:
    some = requests(BRIEF)[::4]  # a step of one row takes nearly as long as one of twenty
    answers, _ = generate(make(max_rows=1, depth=1), some)
    assert answers == {request.request_id: begun[request.request_id] for request in some}


def test_joining_late_changes_nothing(make: Make, begun: dict[str, list[int]]) -> None:
    assert generate(make(), requests(BRIEF), stagger=5)[0] == begun


def test_chunked_prefill_and_depth_1_change_nothing(make: Make, begun: dict[str, list[int]]) -> None:
    assert generate(make(depth=1), requests(BRIEF), narrow=True)[0] == begun


def test_prefix_hits_change_nothing(make: Make, begun: dict[str, list[int]]) -> None:
    primed = [
        GenerationRequest(f"prime {index}", prompt, SamplingParams(1))
        for index, prompt in enumerate(prompts())
    ]
    engine = make(max_rows=10)
    answers, core = generate(engine, primed + requests(BRIEF))
    assert core.stats().prefix_hits > 20 * 16
    assert {name: tokens for name, tokens in answers.items() if not name.startswith("prime")} == begun


def test_preemption_changes_nothing(make: Make, batched: dict[str, list[int]]) -> None:
    engine = make(blocks=70)
    answers, core = generate(engine, requests(GREEDY))
    assert core.stats().preemptions > 3
    assert answers == batched


def test_seeded_sampling_does_not_depend_on_company(make: Make) -> None:
    sampling = SamplingParams(16, temperature=0.8, top_p=0.9, top_k=50, seed=1234)
    together, _ = generate(make(), requests(sampling)[:5])
    apart, _ = generate(make(max_rows=1), requests(sampling)[:5])
    assert together == apart
    other, _ = generate(make(), requests(SamplingParams(16, 0.8, 0.9, 50, seed=99))[:5])
    assert other != together


def test_a_row_of_nan_is_reported_and_its_memory_stays_clean(make: Make, weights: Weights) -> None:
    broken = dict(weights.arrays)
    broken["lm_head"], broken["embed"] = broken["embed"], broken["embed"].copy()
    broken["embed"][77] = np.nan
    engine = make(replace(weights, arrays=broken), kv_memory=64 << 20, max_model_len=256, max_rows=4)
    core = EngineCore(engine, Interleave(), prefix_cache=False)
    good = prompts()[0]
    core.add(GenerationRequest("bad", [5, 77, 6, 7], SamplingParams(4)))
    core.add(GenerationRequest("good", good, SamplingParams(4)))
    finish = {}
    while not core.idle:
        for delta in core.step():
            finish[delta.request_id] = delta.finish
    assert finish == {"bad": "error", "good": "length"}
    for layer in demo.model_of(engine).layers:
        assert bool(torch.isfinite(layer.key_pool).all())
        assert bool(torch.isfinite(layer.value_pool).all())


def test_verified_guesses_change_no_answer(make: Make) -> None:
    """Greedy and sampled, of prompts that ask for what they hold already."""
    greedy, sampled = SamplingParams(24), SamplingParams(24, temperature=0.7, top_p=0.9, seed=5)
    wanted = [
        GenerationRequest(f"{name} {index}", prompt + prompt[4:] + prompt[4:20], sampling)
        for name, sampling in (("greedy", greedy), ("sampled", sampled))
        for index, prompt in enumerate(prompts()[:4])
    ]
    without, _ = generate(make(max_rows=4), wanted)
    with_guesses, core = generate(make(max_rows=4, guesses=3), wanted, drafter=NgramDrafter())
    assert with_guesses == without
    assert core.stats().accepted_tokens > 10
