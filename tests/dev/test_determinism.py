"""The same call gets the same answer, whatever else the server is doing: over HTTP, on real weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from demo import QUESTIONS
from serving import ANY_MODEL, Served, serving

MAX_TOKENS = 10
AT_ONCE = 8


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # float32, in which no two tokens are so close that the shape of a step could decide between them
    options = ("--dtype", "float32", "--max-model-len", "512", "--seed", "7")
    with serving(tmp_path_factory.mktemp("server"), *options) as served, closing(client(served)) as runtime:
        yield runtime


def client(served: Served) -> Any:
    return served.client(max_pool_connections=AT_ONCE)


@dataclass(frozen=True)
class Call:
    question: str
    inference: dict[str, Any] = field(default_factory=dict)
    additional: dict[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> dict[str, Any]:
        return {
            "modelId": ANY_MODEL,
            "messages": [{"role": "user", "content": [{"text": self.question}]}],
            "inferenceConfig": {"maxTokens": MAX_TOKENS} | self.inference,
            "additionalModelRequestFields": self.additional,
        }

    def ask(self, runtime: Any) -> str:
        answer = runtime.converse(**self.request)
        return str(answer["output"]["message"]["content"][0]["text"])

    def stream(self, runtime: Any) -> str:
        stream = runtime.converse_stream(**self.request)["stream"]
        deltas = (event["contentBlockDelta"] for event in stream if "contentBlockDelta" in event)
        return "".join(delta["delta"]["text"] for delta in deltas)


QUESTION = QUESTIONS[1]
CALLS = [
    Call(question, inference, additional)
    for question in QUESTIONS[1:3]
    for inference, additional in (
        ({"temperature": 0}, {}),
        ({"temperature": 1, "topP": 1}, {"seed": 5}),
        ({"temperature": 1, "topP": 0.9}, {"seed": 6, "top_k": 40}),
        ({"temperature": 1}, {}),  # the server's seed
    )
]


def test_the_same_answers_alone_and_amid_others(runtime: Any) -> None:
    alone = [call.ask(runtime) for call in CALLS]
    assert len(set(alone)) == len(CALLS)
    crowd = [*range(len(CALLS))] * 2
    random.Random(0).shuffle(crowd)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        amid_others = list(pool.map(lambda index: CALLS[index].ask(runtime), crowd))
    assert amid_others == [alone[index] for index in crowd]


def test_seeds_matter(runtime: Any) -> None:
    hot = [Call(QUESTION, {"temperature": 1}, {"seed": seed}) for seed in range(3)]
    assert len({call.ask(runtime) for call in hot}) == 3


def test_a_stream_says_the_same(runtime: Any) -> None:
    call = Call(QUESTION, {"temperature": 1}, {"seed": 3})
    assert call.stream(runtime) == call.ask(runtime)
