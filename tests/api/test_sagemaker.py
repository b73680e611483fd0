"""`/ping` and `/invocations` of a server that stands where a SageMaker container stands, asked as SageMaker
asks: without credentials, on an address that wants them, with the caller's body and CustomAttributes
alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from botocore.eventstream import EventStreamBuffer
from serving import PATIENCE, Served, serving

MODEL = "meta.llama3-1-8b-instruct-v1:0"
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": "Say hello."}]}],
    "inferenceConfig": {"maxTokens": 4},
}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 4,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """On the CPU backend, started as SageMaker does: `serve`, and variables."""
    variables = {
        "OUTCROP_HOST": "127.0.0.1",
        "OUTCROP_AUTH": '{"mode": "required"}',
        "OUTCROP_SAGEMAKER": "true",
    }
    with serving(tmp_path_factory.mktemp("container"), **variables) as served:
        yield served


def invoke(container: Served, body: object, attributes: str = "") -> httpx.Response:
    headers = {"x-amzn-sagemaker-custom-attributes": attributes} if attributes else {}
    return httpx.post(
        f"{container.url}/invocations", content=json.dumps(body), headers=headers, timeout=PATIENCE
    )


def test_ping_is_readiness(container: Served) -> None:
    assert httpx.get(f"{container.url}/ping").status_code == 200
    assert httpx.get(f"{container.url}/ping").json() == httpx.get(f"{container.url}/health/ready").json()


def test_a_chat_needs_no_model(container: Served) -> None:
    answer = invoke(container, CHAT)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"]
    assert answer.json()["usage"]["completion_tokens"] <= 4
    assert invoke(container, CHAT | {"model": MODEL}).json()["choices"] == answer.json()["choices"]


def test_a_stream_is_passed_on_as_it_comes(container: Served) -> None:
    with httpx.stream(
        "POST", f"{container.url}/invocations", json=CHAT | {"stream": True}, timeout=PATIENCE
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    assert len(events) > 3


def test_the_models_own_body(container: Served) -> None:
    answer = invoke(container, {"prompt": "Once upon a time", "max_gen_len": 4, "temperature": 0})
    assert answer.status_code == 200, answer.text
    assert answer.json()["generation_token_count"] == 4


@pytest.mark.parametrize(
    "attributes", [f"route=/model/{MODEL}/converse", f"a=b, route=/model/{MODEL}/converse"]
)
def test_any_route_by_its_name(container: Served, attributes: str) -> None:
    answer = invoke(container, CONVERSE, attributes)
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"]["message"]["role"] == "assistant"


def test_an_event_stream_by_its_route(container: Served) -> None:
    answer = invoke(container, CONVERSE, f"route=/model/{MODEL}/converse-stream")
    buffer = EventStreamBuffer()
    buffer.add_data(answer.content)
    kinds = [message.headers[":event-type"] for message in buffer]
    assert (kinds[0], kinds[-1]) == ("messageStart", "metadata")


@pytest.mark.parametrize(
    ("body", "attributes", "says"),
    [
        ({}, "", "neither messages nor a prompt"),
        ([], "", "neither messages nor a prompt"),
        (CONVERSE, "route=/metrics", "does not begin with /model/"),
        (CONVERSE, "route=/model-invocation-job", "does not begin with /model/"),
    ],
)
def test_what_has_no_route_is_refused(container: Served, body: object, attributes: str, says: str) -> None:
    answer = invoke(container, body, attributes)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert says in answer.json()["message"]


def test_a_body_that_is_no_json(container: Served) -> None:
    answer = httpx.post(f"{container.url}/invocations", content=b"\xff{", timeout=PATIENCE)
    assert (answer.status_code, answer.json()["message"][:20]) == (400, "The body is not JSON")


def test_every_other_route_still_wants_a_key(container: Served) -> None:
    for path in (f"/model/{MODEL}/converse", "/openai/v1/chat/completions"):
        assert httpx.post(f"{container.url}{path}", json=CONVERSE).status_code in (401, 403)
    assert httpx.get(f"{container.url}/metrics").status_code in (401, 403)
    assert httpx.get(f"{container.url}/invocations").status_code in (401, 403)


def test_without_the_setting_there_is_neither(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("server"), "--backend", "fake") as served:
        assert httpx.get(f"{served.url}/ping").status_code == 404
        assert invoke(served, CHAT).status_code == 404
