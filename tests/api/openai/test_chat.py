"""`/openai/v1/chat/completions` over real HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outcrop.engine.client import Abilities

from ...conformance.strategies import json_values, spoilt
from ..doubles import Script
from ..server import Server
from .test_completions import chunks

PATH = "/openai/v1/chat/completions"
MODEL = "meta.llama3-8b-instruct-v1:0"
HI = [{"role": "user", "content": "Hi"}]
HELLO = {"model": MODEL, "messages": HI}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = b'{"name": "weather", "parameters": {"city": "Paris"}}'
CALLED = [
    *HI,
    {"role": "assistant", "content": None, "refusal": None, "annotations": None, "audio": None,
     "function_call": None, "tool_calls": [
         {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]},
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "rain"}]},
]  # fmt: skip


def test_a_whole_answer(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(cached=4)
    response = http.post(PATH, json=HELLO)
    body = response.json()
    assert body.pop("id") == f"chatcmpl-{response.headers['x-amzn-requestid']}"
    assert isinstance(body.pop("created"), int)
    message = {"role": "assistant", "content": "Hello, world", "refusal": None}
    assert body == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 13,
            "total_tokens": 22,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


def test_a_stream(http: httpx.Client) -> None:
    *before, last = chunks(
        http.post(PATH, json=HELLO | {"stream": True, "stream_options": {"include_usage": True}})
    )
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["usage"] is None for chunk in before)
    choices = [chunk["choices"][0] for chunk in before]
    texts = ("Hello", ", ", "world")
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""}, *({"content": text} for text in texts), {},
    ]  # fmt: skip
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 22)


def test_several_choices_draw_apart(http: httpx.Client, server: Server) -> None:
    body = http.post(PATH, json=HELLO | {"n": 3, "seed": 7}).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 39
    assert sorted(request.sampling.seed for request in server.engine.requests) == [7, 8, 9]
    got = chunks(http.post(PATH, json=HELLO | {"n": 2, "stream": True}))
    texts = {0: "", 1: ""}
    for chunk in got:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert set(texts.values()) == {"Hello, world"}


def test_calls(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=(CALL, b"\n", CALL[:20], CALL[20:]))
    asked = HELLO | {"tools": [TOOL]}
    (choice,) = http.post(PATH, json=asked).json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert [call["function"]["arguments"] for call in choice["message"]["tool_calls"]] == [
        '{"city": "Paris"}'
    ] * 2
    arguments = {0: "", 1: ""}
    for chunk in chunks(http.post(PATH, json=asked | {"stream": True})):
        for call in chunk["choices"][0]["delta"].get("tool_calls", ()):
            arguments[call["index"]] += call["function"]["arguments"]
    assert arguments == {0: '{"city": "Paris"}', 1: '{"city": "Paris"}'}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [*HI, {"role": "assistant", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [*HI, {**CALLED[1], "tool_calls": [
            {"id": "a", "function": {"name": "f", "arguments": "[1]"}}]}, *HI]},
         "messages[1].tool_calls[0].function.arguments"),
        ({"model": None}, "model"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"n": 0}, "n"),
        ({"store": True}, "store"),
        ({"functions": []}, "functions"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "tools[1]"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {
            "name": "a", "strict": True, "parameters": {"properties": 3}}}]}, "tools[0].function.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 3}}}},
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "response_format"),
        ({"logit_bias": {"300": 1}}, "logit_bias"),
        ({"guided_json": {}}, "guided_json"),
    ],
)  # fmt: skip
def test_what_is_refused(http: httpx.Client, server: Server, more: dict[str, Any], param: str) -> None:
    response = http.post(PATH, json=HELLO | more)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")
    assert server.engine.requests == []


def test_one_model(http: httpx.Client) -> None:
    listed = http.get("/openai/v1/models").json()["data"]
    assert http.get(f"/openai/v1/models/{MODEL}").json() == listed[0]
    assert http.get("/openai/v1/models/some.other").json()["id"] == "some.other"
    missing = http.get("/openai/v1/models/no such")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


RICH = {
    "messages": [{"role": "system", "content": "A"}, *CALLED],
    "tools": [TOOL],
    "tool_choice": "auto",
    "stop": ["a"],
    "max_completion_tokens": 9,
    "logit_bias": {"3": 1},
    "metadata": {"a": "b"},
}


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck), deadline=None)
@given(body=spoilt(st.just(HELLO | RICH)) | json_values)
def test_no_body_is_the_servers_fault(http: httpx.Client, body: Any) -> None:
    response = http.post(PATH, json=body) if _is_json(body) else http.post(PATH, content=repr(body))
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]


def _is_json(body: Any) -> bool:
    """Whether httpx can write it: it refuses infinite numbers."""
    return "inf" not in repr(body)


def test_log_probabilities_of_each_token(
    http: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.engine.script = Script(pieces=(b"caf", b"\xc3", b"\xa9"))
    asked = HELLO | {"logprobs": True, "top_logprobs": 1}
    (choice,) = http.post(PATH, json=asked).json()["choices"]
    assert choice["logprobs"]["refusal"] is None
    told = choice["logprobs"]["content"]
    assert [each["token"] for each in told] == ["c", "a", "f", "\\xc3", "\\xa9"]
    same = {"token": "c", "logprob": -0.5, "bytes": [99]}
    assert told[0] == {**same, "top_logprobs": [same]}
    assert bytes(byte for each in told for byte in each["bytes"]).decode() == choice["message"]["content"]
    streamed = [chunk["choices"][0] for chunk in chunks(http.post(PATH, json=asked | {"stream": True}))]
    assert streamed[0]["logprobs"] is None
    # Those of a piece that completes no character come with the next that does.
    assert [each["delta"].get("content") for each in streamed] == ["", "caf", "\u00e9", None]
    assert [each for chunk in streamed if chunk["logprobs"] for each in chunk["logprobs"]["content"]] == told
    bare = http.post(PATH, json=HELLO | {"logprobs": True}).json()["choices"][0]["logprobs"]["content"]
    assert all(each["top_logprobs"] == [] for each in bare)
    monkeypatch.setattr(server.engine, "can", Abilities())
    refused = http.post(PATH, json=asked)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "logprobs"
