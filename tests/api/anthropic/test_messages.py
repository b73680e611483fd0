"""`/anthropic/v1/messages` over real HTTP. What a body may hold is tested with Claude's native body."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from outcrop.api.admission import ApiLimits
from outcrop.engine.client import ModelFailure

from ..doubles import Script, ScriptedEngine
from ..server import Server, eventually, running

PATH = "/anthropic/v1/messages"
MODEL = "claude-3-haiku-20240307"
HELLO = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each of which names its type twice."""
    assert response.headers["content-type"] == "text/event-stream"
    *frames, rest = response.text.split("\n\n")
    assert rest == ""
    found = []
    for frame in frames:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_whole_answer(http: httpx.Client) -> None:
    body = http.post(PATH, json=HELLO).raise_for_status().json()
    assert body["id"].startswith("msg_")
    assert (body["model"], body["stop_reason"]) == (MODEL, "end_turn")
    assert body["content"] == [{"type": "text", "text": "Hello, world"}]


def test_a_stream(http: httpx.Client) -> None:
    found = events(http.post(PATH, json=HELLO | {"stream": True}))
    assert [event["type"] for event in found] == [
        "message_start", "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert "amazon-bedrock-invocationMetrics" not in found[-1]


def test_tokens_are_counted(http: httpx.Client) -> None:
    asked = {name: value for name, value in HELLO.items() if name != "max_tokens"}
    response = http.post(f"{PATH}/count_tokens", json=asked)
    assert response.json() == {"input_tokens": len("user: Hi\n")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model: This parameter is required."),
        ({"max_tokens": None}, "max_tokens: This parameter is required."),
        (
            {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
            "messages.0.content.0.type: 'x' is not",
        ),
        ({"container": "a"}, "container: This server does not have this parameter."),
    ],
)
def test_errors(http: httpx.Client, change: dict[str, Any], message: str) -> None:
    response = http.post(PATH, json=HELLO | change)
    assert response.status_code == 400
    error = response.json()["error"]
    assert response.json()["type"] == "error"
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(message)


def test_errors_of_all_kinds_have_anthropic_s_form(http: httpx.Client, server: Server) -> None:
    unknown = http.get("/anthropic/v1/nothing")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    server.engine.script = Script(error=ModelFailure("NaN"), fail_after=1)
    *_, last = events(http.post(PATH, json=HELLO | {"stream": True}))
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    eventually(lambda: server.engine.open == 0)


def test_a_full_server_and_an_unknown_model() -> None:
    limits = ApiLimits(max_inflight=1)
    with (
        running(ScriptedEngine(Script(hold=True)), demo=False, aliases=(MODEL,), limits=limits) as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        unknown = http.post(PATH, json=HELLO | {"model": "claude-9"})
        with http.stream("POST", PATH, json=HELLO | {"stream": True}):
            full = http.post(PATH, json=HELLO)
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "model: claude-9")
    assert (full.status_code, full.json()["error"]["type"]) == (429, "rate_limit_error")
