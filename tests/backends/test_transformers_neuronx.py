"""The legacy backend over a stand-in for transformers-neuronx: its answers are transformers' answers. The
long run of the same is the suite of all backends (`test_answers.py`, `test_constrained.py`).
"""

import dataclasses
import logging
from pathlib import Path

import demo
import numpy as np
import pytest
import torch
from demo import prompts
from generation import generate, requests
from tiny_models import LLAMA_31, tiny_model

from outcrop.backends.base import DeviceFailure, blank_step
from outcrop.backends.transformers_neuronx.backend import END_OF_LIFE, sizes_of
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave

SDK = Path(__file__).parents[1] / "neuron" / "sdk"
TOKENS = 8
GREEDY = SamplingParams(TOKENS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    judge = demo.random_weights().judge()
    judge.save_pretrained(folder)  # type: ignore[operator]
    return folder


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SDK))
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "0-1")


@pytest.fixture(scope="module")
def batched(checkpoint: Path) -> dict[str, list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SDK))
        answers, _ = generate(demo.legacy_backend(checkpoint), some())
    return answers


def some() -> list[GenerationRequest]:
    return requests(GREEDY)[::3]


@pytest.mark.filterwarnings("ignore")
def test_greedy_answers_are_transformers_answers(batched: dict[str, list[int]]) -> None:
    judge = demo.random_weights().judge()
    for index, answer in batched.items():
        prompt = prompts()[int(index)]
        with torch.inference_mode():
            logits = judge(torch.tensor([prompt + answer])).logits[0]
        assert answer == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


def test_a_row_of_nan_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    broken = tiny_model(LLAMA_31)  # whose embedding table is not its head
    with torch.no_grad():
        broken.model.embed_tokens.weight[77] = torch.nan
    broken.save_pretrained(tmp_path)
    core = EngineCore(demo.legacy_backend(tmp_path, max_rows=4), Interleave())
    core.add(GenerationRequest("bad", [5, 77, 6, 7], SamplingParams(4)))
    core.add(GenerationRequest("good", [5, 78, 6, 7], SamplingParams(4)))
    finish = {}
    while not core.idle:
        for delta in core.step():
            finish[delta.request_id] = delta.finish
    assert finish == {"bad": "error", "good": "length"}


def test_prefix_hits_change_nothing(checkpoint: Path, batched: dict[str, list[int]]) -> None:
    primed = [
        GenerationRequest(f"prime {each.request_id}", each.prompt, SamplingParams(1)) for each in some()
    ]
    answers, core = generate(demo.legacy_backend(checkpoint, max_rows=4), primed + some())
    assert core.stats().prefix_hits > 5 * 16
    assert {name: tokens for name, tokens in answers.items() if not name.startswith("prime")} == batched


def test_sampling_with_a_seed_logprobs_and_bias(checkpoint: Path) -> None:
    sampling = SamplingParams(4, temperature=0.8, top_k=50, seed=7, logprobs=3)
    biased = SamplingParams(4, logit_bias={11: 100.0})
    core = EngineCore(demo.legacy_backend(checkpoint), Interleave())
    told = {}
    answers: dict[str, list[int]] = {"one": [], "same": [], "biased": []}
    for name, wanted in (("one", sampling), ("same", sampling), ("biased", biased)):
        core.add(GenerationRequest(name, prompts()[0], wanted))
    while not core.idle:
        for delta in core.step():
            answers[delta.request_id] += delta.tokens
            told.setdefault(delta.request_id, []).extend(delta.logprobs)
    assert answers["one"] == answers["same"] != answers["biased"] == [11] * 4
    assert [len(each.likeliest) for each in told["one"]] == [3] * 4
    assert all(each.likeliest[0][1] >= each.logprob for each in told["one"])


def test_a_broken_device_ends_the_engine(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers_neuronx

    engine = demo.legacy_backend(checkpoint)
    engine.warmup(lambda stage, fraction: None)
    failure = RuntimeError("Failed to execute the model status=1200 message=Hardware error")
    monkeypatch.setattr(transformers_neuronx.LlamaForSampling, "fault", failure)
    step = blank_step(engine.buckets[1], engine.capabilities)
    one = dataclasses.replace(step, context_lens=np.ones(1, np.int32), slot_mapping=step.slot_mapping * 0)
    with pytest.raises(DeviceFailure) as raised:
        engine.submit(one)
    assert (raised.value.code, raised.value.drain) == (1200, "repeated")


def test_it_says_that_its_time_is_over(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        demo.legacy_backend(checkpoint)
    assert END_OF_LIFE in caplog.text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cores": None}, "cores: give NeuronCores such as 0-7"),
        ({"dtype": "int8"}, "dtype int8: transformers-neuronx has bfloat16 and float32"),
        ({"max_model_len": 1 << 20}, "beyond the model's context"),
        ({"block_size": 512}, "paged attention wants at least two"),
        ({"max_rows": 600}, "max_rows 600: with 512 tokens of context there are at most 512"),
    ],
)
def test_what_it_cannot_do_is_refused(checkpoint: Path, changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        demo.legacy_backend(checkpoint, **changes)


def test_contexts_are_whole_blocks() -> None:
    sizes = sizes_of(4, 1000, 32)
    assert (sizes.length, sizes.blocks, sizes.tokens) == (992, 4 * 31 + 1, (16, 128, 512))
