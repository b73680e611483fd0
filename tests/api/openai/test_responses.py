"""`/openai/v1/responses` over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from outcrop.engine.client import Abilities, FinishReason, ModelFailure

from ..doubles import Script
from ..server import Server

PATH = "/openai/v1/responses"
MODEL = "meta.llama3-8b-instruct-v1:0"
HELLO = {"model": MODEL, "input": "Hi"}
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
LOGPROBS = ["message.output_text.logprobs"]
CALL = b'{"name": "weather", "parameters": {"city": "Paris"}}'


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream: numbered in their order, each naming its type twice."""
    assert response.headers["content-type"] == "text/event-stream"
    *frames, rest = response.text.split("\n\n")
    assert rest == ""
    found = []
    for number, frame in enumerate(frames):
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert (name, found[-1]["sequence_number"]) == (f"event: {found[-1]['type']}", number)
    return found


def test_a_whole_answer(http: httpx.Client) -> None:
    body = http.post(PATH, json=HELLO | {"instructions": "Be brief.", "max_output_tokens": 20}).json()
    assert (body["object"], body["status"], body["store"]) == ("response", "completed", False)
    (item,) = body["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    text = {"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []}
    assert item["content"] == [text]
    assert body["usage"] == {
        "input_tokens": len("system: Be brief.\nuser: Hi\n"),
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 13,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": len("system: Be brief.\nuser: Hi\n") + 13,
    }


def test_a_stream_of_text(http: httpx.Client) -> None:
    found = events(http.post(PATH, json=HELLO | {"stream": True}))
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * 3,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert "".join(event.get("delta", "") for event in found) == found[-4]["text"] == "Hello, world"
    assert found[0]["response"]["status"] == "in_progress"
    assert found[-1]["response"]["output"] == [found[-2]["item"]]
    assert {event["item_id"] for event in found if "item_id" in event} == {found[2]["item"]["id"]}


def test_a_stream_of_text_and_calls(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=(b"See: ", CALL[:30], CALL[30:], CALL))
    asked = HELLO | {"tools": [TOOL]}
    found = events(http.post(PATH, json=asked | {"stream": True}))
    ended = [event for event in found if event["type"] == "response.output_item.done"]
    assert [(event["output_index"], event["item"]["type"]) for event in ended] == [
        (0, "message"), (1, "function_call"), (2, "function_call"),
    ]  # fmt: skip
    assert [event["item"] for event in ended] == found[-1]["response"]["output"]
    arguments = [
        event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta"
    ]
    assert "".join(arguments) == 2 * '{"city": "Paris"}'
    whole = http.post(PATH, json=asked).json()["output"]
    assert [item.get("arguments") for item in whole] == [None, '{"city": "Paris"}', '{"city": "Paris"}']


@pytest.mark.parametrize("pieces", [(b"Hel",), (b'{"name": "weather", "parameters": {"ci',)])
def test_an_answer_that_is_cut_off(http: httpx.Client, server: Server, pieces: tuple[bytes, ...]) -> None:
    server.engine.script = Script(pieces=pieces, finish=FinishReason.LENGTH)
    asked = HELLO | {"tools": [TOOL]}
    whole = http.post(PATH, json=asked).json()
    last = events(http.post(PATH, json=asked | {"stream": True}))[-1]
    assert last["type"] == "response.incomplete"
    for response in (whole, last["response"]):
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][-1]["status"] == "incomplete"


def test_an_answer_as_input(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=(b"See: ", CALL))
    output = http.post(PATH, json=HELLO | {"tools": [TOOL]}).json()["output"]
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        *output,
        {"type": "function_call_output", "call_id": output[1]["call_id"], "output": "rain"},
        {"type": "message", "role": "user", "content": "So?"},
    ]
    http.post(PATH, json=HELLO | {"input": history, "tools": [TOOL]}).raise_for_status()
    assert bytes(server.engine.requests[-1].prompt) == b"user: Hi\nassistant: See:\nuser: So?\n"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0].type"),
        ({"input": [{"content": "a"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "["}]},
         "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]}, "input[0].call_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": 1}}}},
         "text.format.schema"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": LOGPROBS, "top_logprobs": 21}, "top_logprobs"),
        ({"include": LOGPROBS, "tools": [TOOL]}, "include"),
        ({"unknown": 1}, "unknown"),
    ],
)  # fmt: skip
def test_what_is_refused(http: httpx.Client, server: Server, more: dict[str, Any], param: str) -> None:
    response = http.post(PATH, json=HELLO | more)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert server.engine.requests == []


def test_log_probabilities(http: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.engine.script = Script(pieces=(b"caf", b"\xc3", b"\xa9"))
    asked = HELLO | {"include": LOGPROBS, "top_logprobs": 1}
    body = http.post(PATH, json=asked).json()
    assert body["top_logprobs"] == 1
    (part,) = body["output"][0]["content"]
    assert [each["token"] for each in part["logprobs"]] == ["c", "a", "f", "\\xc3", "\\xa9"]
    same = {"token": "c", "logprob": -0.5, "bytes": [99]}
    assert part["logprobs"][0] == {**same, "top_logprobs": [same]}
    assert bytes(byte for each in part["logprobs"] for byte in each["bytes"]).decode() == part["text"]
    found = events(http.post(PATH, json=asked | {"stream": True}))
    deltas = [event for event in found if event["type"] == "response.output_text.delta"]
    # Those of a piece that completes no character come with the next that does.
    assert [(event["delta"], len(event["logprobs"])) for event in deltas] == [("caf", 3), ("\u00e9", 2)]
    (done,) = [event for event in found if event["type"] == "response.output_text.done"]
    assert [each for event in deltas for each in event["logprobs"]] == done["logprobs"]
    brief = {"token": "c", "logprob": -0.5}
    assert done["logprobs"][0] == {**brief, "top_logprobs": [brief]}
    assert found[-1]["response"]["output"][0]["content"] == [part]
    bare = http.post(PATH, json=HELLO | {"include": LOGPROBS}).json()["output"][0]["content"][0]["logprobs"]
    assert [each["top_logprobs"] for each in bare] == [[]] * 5
    monkeypatch.setattr(server.engine, "can", Abilities())
    refused = http.post(PATH, json=asked)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "include"


def test_a_failure_within_a_stream_is_its_last_event(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(error=ModelFailure("NaN"), fail_after=1)
    last = events(http.post(PATH, json=HELLO | {"stream": True}))[-1]
    assert (last["type"], last["code"]) == ("error", "ModelErrorException")
