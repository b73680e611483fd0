"""What an engine cannot do is refused by name, by every protocol, before the engine sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import httpx
import msgspec
import pytest

from outcrop.api.sampling import SamplingExtras
from outcrop.engine.abilities import ABILITIES, common
from outcrop.engine.client import Abilities, SamplingParams, lacking

from .doubles import ScriptedEngine
from .server import Server, running

MODEL = "meta.llama3-8b-instruct-v1:0"
USER = [{"role": "user", "content": [{"text": "Hi"}]}]
SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
TOOL = {"name": "weather", "description": "of a town", "inputSchema": {"json": {"type": "object"}}}
OPENAI_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Of an engine that can do nothing beside what all can."""
    with running(ScriptedEngine(can=Abilities())) as server:
        yield server


def converse(server: Server, **members: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/model/{MODEL}/converse", json={"messages": USER, **members})


def chat(server: Server, **members: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": MODEL, "messages": messages, **members}
    return httpx.post(f"{server.url}/openai/v1/chat/completions", json=body)


EXTRAS: dict[str, Any] = {
    "seed": 3, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 1, "frequency_penalty": 1,
    "logit_bias": {"65": 1},
}  # fmt: skip
GRAMMAR = "answers held to a grammar"


@pytest.mark.parametrize("name", EXTRAS)
def test_sampling_parameters(server: Server, name: str) -> None:
    extra = {name: EXTRAS[name]}
    invoked = httpx.post(f"{server.url}/model/{MODEL}/invoke", json={"prompt": "x", **extra})
    for answer in (converse(server, additionalModelRequestFields=extra), chat(server, **extra), invoked):
        assert answer.status_code == 400
        assert f"does not support {name}." in answer.text
    assert not server.engine.requests


def test_every_extra_is_known_to_the_table() -> None:
    assert {each.name for each in fields(SamplingExtras)} - {"top_k"} == set(EXTRAS)
    able = ABILITIES["outcrop"]
    for name in Abilities.__struct_fields__:
        none = msgspec.structs.replace(able, **{name: getattr(Abilities(), name)})
        sampling = SamplingParams(1, grammar="x", logprobs=1, min_p=0.1, repetition_penalty=2,
                                  presence_penalty=1, frequency_penalty=1, logit_bias={1: 1.0})  # fmt: skip
        found = lacking(none, sampling, priority=10, seeded=True)
        assert (found is None) == (name in ("prefix_cache", "speculation", "adapters"))
    assert lacking(Abilities(), SamplingParams(1)) is None


@pytest.mark.parametrize(
    "members",
    [
        {"toolConfig": {"tools": [{"toolSpec": TOOL}], "toolChoice": {"any": {}}}},
        {"toolConfig": {"tools": [{"toolSpec": {**TOOL, "strict": True}}]}},
        {"outputConfig": {"textFormat": {"type": "json_schema",
                                         "structure": {"jsonSchema": {"schema": SCHEMA}}}}},
    ],
)  # fmt: skip
def test_grammars(server: Server, members: dict[str, Any]) -> None:
    answer = converse(server, **members)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert GRAMMAR in answer.json()["message"]


def test_tools_that_the_model_may_leave_alone_need_no_grammar(server: Server) -> None:
    assert converse(server, toolConfig={"tools": [{"toolSpec": TOOL}]}).status_code == 200
    assert chat(server, tools=[OPENAI_TOOL]).status_code == 200
    assert GRAMMAR in chat(server, tools=[OPENAI_TOOL], tool_choice="required").json()["error"]["message"]
    server.engine.requests.clear()


def test_log_probabilities(server: Server) -> None:
    error = chat(server, logprobs=True).json()["error"]
    assert error["param"] == "logprobs"


def test_service_tiers(server: Server) -> None:
    assert "does not support a service tier" in converse(server, serviceTier={"type": "priority"}).text
    assert converse(server, serviceTier={"type": "default"}).status_code == 200
    server.engine.requests.clear()


def test_several_engines_can_do_what_each_of_them_can() -> None:
    everything = ABILITIES["outcrop"]
    one = msgspec.structs.replace(everything, logprobs=5, seed=False, adapters=("a", "b"))
    other = msgspec.structs.replace(everything, grammar=False, adapters=("b", "c"))
    both = msgspec.structs.replace(everything, logprobs=5, seed=False, grammar=False, adapters=("b",))
    assert common([one, other, one]) == both
    silent = msgspec.structs.replace(one, logprobs=None)
    assert common([silent, one]).logprobs is None
    assert common([one]) == one
    assert common([]) == Abilities()
