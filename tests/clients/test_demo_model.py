"""An unmodified boto3 program against `outcrop serve` on real weights: the four ways to ask say the same, on
Outcrop's own engine, on vLLM's, and on the legacy backend over a stand-in for its package."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import vllm_engine as vllm
from engine_kinds import IN_PROCESS, OWN, SERVER
from serving import ANY_MODEL, Served, eventually, serving

QUESTION = "What is the capital of France?"
# What the checkpoint's chat template makes of the question: ChatML with the model's own system prompt.
PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
PROMPT_TOKENS = 37
GREEDY = {"maxTokens": 32, "temperature": 0}


SDK = Path(__file__).parents[1] / "neuron" / "sdk"
LEGACY = "transformers-neuronx"
ENGINES = [
    OWN,
    pytest.param(IN_PROCESS, marks=[pytest.mark.slow, pytest.mark.timeout(2 * vllm.START)]),
    pytest.param(SERVER, marks=[pytest.mark.slow, pytest.mark.timeout(2 * vllm.START)]),
    pytest.param(LEGACY, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # float32, in which no two tokens are so close that the shape of a step could decide between them
    folder = tmp_path_factory.mktemp("server")
    if request.param == LEGACY:
        # A stand-in for the package, which runs the model on the CPU.
        options = ("--model", str(vllm.checkpoint()), "--backend", LEGACY, "--cores", "0-1")
        sizes = ("--dtype", "float32", "--max-model-len", "512", "--max-rows", "4")
        with serving(folder, *options, *sizes, patience=vllm.START, PYTHONPATH=_with(SDK)) as served:
            yield served
        return
    with (
        vllm.serving_options(request.param, folder) as options,
        serving(folder, *options, patience=vllm.START) as served,
    ):
        yield served


def _with(folder: Path) -> str:
    """PYTHONPATH with a folder of packages before all else."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="module")
def runtime(server: Served) -> Iterator[Any]:
    with closing(server.client()) as client:
        yield client


def messages(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": text}]}]


@pytest.fixture(scope="module")
def answer(server: Served, runtime: Any) -> dict[str, Any]:
    """The first call that the server gets."""
    return runtime.converse(modelId=ANY_MODEL, messages=messages(QUESTION), inferenceConfig=GREEDY)


@pytest.fixture(scope="module")
def text(answer: dict[str, Any]) -> str:
    return answer["output"]["message"]["content"][0]["text"]


def test_converse_knows_the_capital_of_france(answer: dict[str, Any], text: str) -> None:
    assert "Paris" in text
    assert "<|im_end|>" not in text
    assert answer["stopReason"] == "end_turn"
    usage = answer["usage"]
    assert usage["inputTokens"] == PROMPT_TOKENS
    assert 2 < usage["outputTokens"] < GREEDY["maxTokens"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"]


def test_converse_stream_says_the_same(runtime: Any, answer: dict[str, Any], text: str) -> None:
    stream = list(
        runtime.converse_stream(modelId=ANY_MODEL, messages=messages(QUESTION), inferenceConfig=GREEDY)[
            "stream"
        ]
    )
    pieces = [event["contentBlockDelta"]["delta"]["text"] for event in stream if "contentBlockDelta" in event]
    assert "".join(pieces) == text
    assert len(pieces) > 2  # as it is made, not at the end
    assert stream[0] == {"messageStart": {"role": "assistant"}}
    assert stream[-2] == {"messageStop": {"stopReason": "end_turn"}}
    assert stream[-1]["metadata"]["usage"] == answer["usage"]


def native(max_gen_len: int = 32) -> str:
    return json.dumps({"prompt": PROMPT, "temperature": 0, "max_gen_len": max_gen_len})


def test_invoke_model_says_the_same(runtime: Any, answer: dict[str, Any], text: str) -> None:
    native_answer = runtime.invoke_model(modelId=ANY_MODEL, body=native())
    assert json.loads(native_answer["body"].read()) == {
        "generation": text,
        "prompt_token_count": PROMPT_TOKENS,
        "generation_token_count": answer["usage"]["outputTokens"],
        "stop_reason": "stop",
    }


def test_invoke_model_with_response_stream_says_the_same(
    runtime: Any, answer: dict[str, Any], text: str
) -> None:
    events = runtime.invoke_model_with_response_stream(modelId=ANY_MODEL, body=native())["body"]
    chunks = [json.loads(event["chunk"]["bytes"]) for event in events]
    assert "".join(chunk["generation"] for chunk in chunks) == text
    assert chunks[-1]["stop_reason"] == "stop"
    figures = chunks[-1]["amazon-bedrock-invocationMetrics"]
    assert figures["inputTokenCount"] == PROMPT_TOKENS
    assert figures["outputTokenCount"] == answer["usage"]["outputTokens"]


def test_max_tokens(runtime: Any, text: str) -> None:
    cut = runtime.converse(
        modelId=ANY_MODEL, messages=messages(QUESTION), inferenceConfig=GREEDY | {"maxTokens": 3}
    )
    assert (cut["stopReason"], cut["usage"]["outputTokens"]) == ("max_tokens", 3)
    start = cut["output"]["message"]["content"][0]["text"]
    assert start
    assert text.startswith(start)
    native_cut = json.loads(runtime.invoke_model(modelId=ANY_MODEL, body=native(3))["body"].read())
    assert (native_cut["generation"], native_cut["stop_reason"]) == (start, "length")


def test_a_stop_sequence_ends_the_answer(runtime: Any, answer: dict[str, Any], text: str) -> None:
    config = GREEDY | {"stopSequences": ["never said", "Par"]}
    stopped = runtime.converse(modelId=ANY_MODEL, messages=messages(QUESTION), inferenceConfig=config)
    assert stopped["stopReason"] == "stop_sequence"
    assert stopped["output"]["message"]["content"] == [{"text": text.partition("Par")[0]}]
    assert 0 < stopped["usage"]["outputTokens"] < answer["usage"]["outputTokens"]


def test_a_seed_repeats_a_sampled_answer(runtime: Any) -> None:
    def sampled(seed: int) -> str:
        told = runtime.converse(
            modelId=ANY_MODEL,
            messages=messages("Tell me a story."),
            inferenceConfig={"maxTokens": 12, "temperature": 1.0, "topP": 1.0},
            additionalModelRequestFields={"seed": seed},
        )
        return told["output"]["message"]["content"][0]["text"]

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in (1, 2, 3)}) > 1


def test_a_prompt_that_was_seen_before_comes_from_the_prefix_cache(server: Served, runtime: Any) -> None:
    def ask() -> dict[str, Any]:
        request = messages("Name three colors, and nothing else, one to a line. " * 3)
        request[0]["content"].append({"cachePoint": {"type": "default"}})
        return runtime.converse(
            modelId=ANY_MODEL, messages=request, inferenceConfig=GREEDY | {"maxTokens": 4}
        )

    def settled() -> float:
        """vLLM's figures come once a second."""
        eventually(server.is_idle, "an idle engine")
        return server.metric("vllm:prefix_cache_queries_total")

    before = settled()
    ask()
    eventually(lambda: settled() > before, "the first prompt's figures")
    hits, queries = server.metric("vllm:prefix_cache_hits_total"), settled()
    usage = ask()["usage"]
    eventually(lambda: settled() > queries, "the second prompt's figures")
    new_hits = server.metric("vllm:prefix_cache_hits_total") - hits
    prompt = server.metric("vllm:prefix_cache_queries_total") - queries
    assert 32 <= new_hits < prompt
    assert usage["cacheReadInputTokens"] == new_hits
    assert usage["inputTokens"] == prompt - new_hits


def test_http_2_by_prior_knowledge(server: Served, answer: dict[str, Any], text: str) -> None:
    with httpx.Client(http1=False, http2=True, timeout=60) as client:
        answered = client.post(
            f"{server.url}/model/{ANY_MODEL}/converse",
            json={"messages": messages(QUESTION), "inferenceConfig": GREEDY},
        )
    assert answered.http_version == "HTTP/2"
    assert answered.status_code == 200
    assert answered.json()["output"]["message"]["content"] == [{"text": text}]
    assert answered.json()["usage"] == answer["usage"]


def test_nothing_is_left_of_all_that(server: Served, runtime: Any, text: str) -> None:
    runtime.converse(
        modelId=ANY_MODEL, messages=messages(QUESTION), inferenceConfig=GREEDY | {"maxTokens": 1}
    )
    eventually(server.is_idle, "an idle engine")
    assert server.restarts == 0
    assert "Traceback" not in server.output
