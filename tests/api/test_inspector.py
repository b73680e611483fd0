"""The inspector: the last requests and answers, for those who may see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from outcrop.api.admission import ApiLimits

from .doubles import Script, ScriptedEngine
from .server import Server, running

MODEL = "meta.llama3-8b-instruct-v1:0"
CONVERSATION = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


@pytest.fixture(scope="module")
def inspected() -> Iterator[Server]:
    with running(ScriptedEngine(), inspect=3, limits=ApiLimits(fault_injection=True)) as server:
        yield server


@pytest.fixture
def http(inspected: Server) -> Iterator[httpx.Client]:
    inspected.engine.script = Script()
    with httpx.Client(base_url=inspected.url, timeout=20) as client:
        yield client


def newest(http: httpx.Client) -> dict[str, Any]:
    return http.get("/inspector").raise_for_status().json()["requests"][0]


def test_it_is_off_unless_asked_for(server: Server) -> None:
    assert httpx.get(f"{server.url}/inspector").status_code == 404


def test_a_whole_answer(http: httpx.Client) -> None:
    answer = http.post(f"/model/{MODEL}/converse", json=CONVERSATION)
    seen = newest(http)
    assert seen["requestId"] == answer.headers["x-amzn-requestid"]
    assert (seen["operation"], seen["method"], seen["status"]) == ("Converse", "POST", 200)
    assert (seen["request"], seen["answer"]) == (CONVERSATION, answer.json())
    assert seen["answerBytes"] == len(answer.content)
    assert seen["seconds"] >= 0


def test_the_events_of_a_stream(http: httpx.Client) -> None:
    http.post(f"/model/{MODEL}/converse-stream", json=CONVERSATION)
    events = newest(http)["answer"]
    assert [*events[0]] == ["messageStart"]
    assert events[1] == {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hello"}}}
    http.post(f"/model/{MODEL}/invoke-with-response-stream", json={"prompt": "Hi"})
    assert newest(http)["answer"][0]["chunk"]["generation"] == "Hello"
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    http.post("/openai/v1/chat/completions", json=asked)
    assert newest(http)["answer"].endswith("data: [DONE]\n\n")


def test_refusals_and_faults(http: httpx.Client) -> None:
    refused = http.post(f"/model/{MODEL}/converse", content=b"{")
    seen = newest(http)
    assert (seen["status"], seen["request"]) == (400, "{")
    assert seen["answer"]["message"] == refused.json()["message"]
    fault = {"x-outcrop-fault": "ThrottlingException"}
    http.post(f"/model/{MODEL}/converse", json=CONVERSATION, headers=fault)
    assert newest(http)["status"] == 429


def test_only_the_last_are_kept(http: httpx.Client) -> None:
    for number in range(5):
        http.post(f"/model/{MODEL}/invoke", json={"prompt": str(number)})
    kept = http.get("/inspector").json()["requests"]
    assert [each["request"]["prompt"] for each in kept] == ["4", "3", "2"]


def test_a_long_body_is_kept_in_part(http: httpx.Client) -> None:
    http.post(f"/model/{MODEL}/invoke", json={"prompt": "a" * 300_000})
    seen = newest(http)
    assert seen["requestBytes"] > 300_000
    assert len(seen["request"]) == 256 * 1024
