"""CountTokens, and the operations that answer what they cannot do."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import h2.connection
import h2.events
import httpx
import pytest

from ..doubles import ScriptedEngine
from ..server import Server, running
from ..shapes import RUNTIME, assert_fits
from .requests import MODEL, TEXT, document, message_of, user

COUNT = f"/model/{MODEL}/count-tokens"


def native(body: Any) -> dict[str, Any]:
    return {"input": {"invokeModel": {"body": base64.b64encode(json.dumps(body).encode()).decode()}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [user(TEXT)]},
        {"messages": [user(TEXT), user(TEXT, document("n", text="x"))], "system": [{"text": "Be brief."}]},
    ],
)
def test_counts_are_those_of_converse(http: httpx.Client, fields: dict[str, Any]) -> None:
    response = http.post(COUNT, json={"input": {"converse": fields}})
    assert_fits(response.json(), RUNTIME.operation_model("CountTokens").output_shape)
    usage = http.post(f"/model/{MODEL}/converse", json=fields).json()["usage"]
    assert response.json() == {"inputTokens": usage["inputTokens"]}


def test_counts_of_native_bodies(http: httpx.Client) -> None:
    assert http.post(COUNT, json=native({"prompt": "Hello"})).json() == {"inputTokens": 5}


def test_a_prompt_longer_than_the_context_is_counted(http: httpx.Client) -> None:
    assert http.post(COUNT, json=native({"prompt": "x" * 5000})).json() == {"inputTokens": 5000}


def test_counting_needs_no_engine() -> None:
    engine = ScriptedEngine(starts_at_once=False)
    with running(engine, wait_ready=False) as server, httpx.Client(base_url=server.url) as http:
        assert http.post(COUNT, json={"input": {"converse": {"messages": [user(TEXT)]}}}).status_code == 200
        server.call_soon(engine.release.set)


MISCOUNTED: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "1 validation error detected: Value null at 'input' failed to satisfy constraint: "
        "Member must not be null"),
    "neither": ({"input": {}},
        "CountTokensInput object at input must set one of the following keys: invokeModel, converse."),
    "a body that is none": (native({"prompt": ""}),
        "Malformed input request: #/prompt: expected minLength: 1, actual: 0, "
        "please reformat your input and try again."),
    "no conversation": ({"input": {"converse": {}}},
        "A conversation must start with a user message. "
        "Try again with a conversation that starts with a user message."),
    "a refusal of the template": ({"input": {"converse": {"messages": [user({"text": "REFUSE"})]}}},
        "The model returned the following errors: no such words here"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "message"), MISCOUNTED.values(), ids=MISCOUNTED)
def test_what_cannot_be_counted(http: httpx.Client, body: Any, message: str) -> None:
    assert message_of(http.post(COUNT, json=body)) == message


@pytest.mark.parametrize("model", ["x" * 257, "a b", "ä"])
def test_identifiers_that_count_tokens_does_not_take(http: httpx.Client, model: str) -> None:
    message = message_of(http.post(f"/model/{model}/count-tokens", json={}))
    assert message.startswith("1 validation error detected: Value at 'modelId' failed to satisfy constraint")


BIDIRECTIONAL = f"/model/{MODEL}/invoke-with-bidirectional-stream"
NOT_OFFERED = {
    "InvokeModelWithBidirectionalStream": ("POST", BIDIRECTIONAL),
    "InvokeGuardrailChecks": ("POST", "/guardrail-checks/invoke"),
    "StartAsyncInvoke": ("POST", "/async-invoke"),
    "GetAsyncInvoke": (
        "GET",
        "/async-invoke/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aasync-invoke%2Fabc123def456",
    ),
}


@pytest.mark.parametrize("operation", NOT_OFFERED)
def test_operations_that_are_not_offered_answer_an_error_of_theirs(
    http: httpx.Client, operation: str
) -> None:
    method, path = NOT_OFFERED[operation]
    response = http.request(method, path, content=b"{}")
    declared = {shape.name: shape for shape in RUNTIME.operation_model(operation).error_shapes}
    code = response.headers["x-amzn-errortype"]
    assert response.status_code == declared[code].metadata["error"]["httpStatusCode"]
    assert response.json()["message"]


def test_no_asynchronous_invocations(http: httpx.Client) -> None:
    assert http.get("/async-invoke").json() == {"asyncInvokeSummaries": []}
    assert http.get("/async-invoke", params={"statusEquals": "x"}).status_code == 400


def test_a_guardrail_identifier_that_is_none(http: httpx.Client) -> None:
    message = message_of(http.post("/guardrail/A%20b/version/x/apply", json={}))
    assert message.startswith("2 validation errors detected: Value at 'guardrailIdentifier'")


def test_a_two_way_stream_is_refused_while_its_client_still_sends(server: Server) -> None:
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    head = [(":method", "POST"), (":path", BIDIRECTIONAL), (":scheme", "http"), (":authority", "x")]
    connection.send_headers(1, head)
    connection.send_data(1, b"\0\0\0\x10")
    status, body = "", b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        wire.sendall(connection.data_to_send())
        while b"}" not in body:
            for event in connection.receive_data(wire.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers or ())[b":status"].decode()
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
    assert status == "400"
    assert json.loads(body) == {"message": "The model is unsupported for bidirectional streaming."}


def test_over_http_1_nothing_of_the_body_is_taken_for_a_request(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        wire.sendall(
            f"POST {BIDIRECTIONAL} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer or b"}" not in answer:
            answer += wire.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        rest = b""
        try:
            wire.sendall(b"5\r\nhello\r\n0\r\n\r\n")
            rest = wire.recv(65536)
        except OSError:
            pass
    assert b"HTTP/1.1" not in rest
