"""The API over plain HTTP/1.1 and HTTP/2: what an SDK hides or never sends."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import uuid
from typing import Any

import h2.connection
import httpx
import pytest
from botocore.eventstream import EventStreamBuffer
from examples import examples
from h2.events import PingAckReceived
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outcrop.api.admission import ApiLimits
from outcrop.api.app import drain
from outcrop.engine.client import EngineUnavailable

from .doubles import Script, ScriptedEngine
from .server import Server, eventually, running

MODEL = "meta.llama3-8b-instruct-v1:0"
CONVERSE = f"/model/{MODEL}/converse"
STREAM = f"/model/{MODEL}/converse-stream"
INVOKE = f"/model/{MODEL}/invoke"
HELLO = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


def assert_error(response: httpx.Response, status: int, code: str, message: str) -> None:
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (status, code)
    assert response.json()["message"] == message
    uuid.UUID(response.headers["x-amzn-requestid"])


def test_converse(http: httpx.Client, server: Server) -> None:
    response = http.post(CONVERSE, json=HELLO)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    uuid.UUID(response.headers["x-amzn-requestid"])
    body = response.json()
    assert body.pop("metrics")["latencyMs"] >= 0
    assert body == {
        "output": {"message": {"role": "assistant", "content": [{"text": "Hello, world"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 9, "outputTokens": 13, "totalTokens": 22},
    }
    assert server.engine.requests[-1].request_id == response.headers["x-amzn-requestid"]


def test_the_stream_comes_token_by_token(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(hold=True)
    with http.stream("POST", STREAM, json=HELLO) as response:
        assert response.headers["content-type"] == "application/vnd.amazon.eventstream"
        buffer = EventStreamBuffer()
        buffer.add_data(next(response.iter_raw()))
        # The engine has said one word and is silent: that word is here.
        types = [(event.headers[":event-type"], json.loads(event.payload)) for event in buffer]
    assert types == [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}),
    ]
    http.close()
    eventually(lambda: server.engine.open == 0)


def post_h1(wire: socket.socket, path: str, body: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    wire.sendall(head.encode() + body)


def post_h2(wire: socket.socket, *requests: tuple[str, bytes]) -> h2.connection.H2Connection:
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    for number, (path, body) in enumerate(requests):
        stream = 2 * number + 1
        head = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x")]
        connection.send_headers(stream, head)
        connection.send_data(stream, body, end_stream=True)
    wire.sendall(connection.data_to_send())
    return connection


@pytest.mark.parametrize("h2c", [False, True], ids=["http/1.1", "h2c"])
@pytest.mark.parametrize("path", [CONVERSE, STREAM, INVOKE, f"{INVOKE}-with-response-stream"])
def test_a_client_that_leaves_ends_the_generation(server: Server, path: str, h2c: bool) -> None:
    server.engine.script = Script(hold=True)
    aborted = server.engine.aborted
    body = json.dumps({"prompt": "Hi"} if "invoke" in path else HELLO).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        if h2c:
            post_h2(wire, (path, body))
        else:
            post_h1(wire, path, body)
        eventually(lambda: server.engine.open == 1)
    eventually(lambda: server.engine.open == 0)
    assert server.engine.aborted == aborted + 1


def test_one_reset_stream_leaves_its_connection_alone(server: Server) -> None:
    server.engine.script = Script(hold=True)
    body = json.dumps(HELLO).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        connection = post_h2(wire, (STREAM, body), (STREAM, body))
        eventually(lambda: server.engine.open == 2)
        connection.reset_stream(1)
        connection.ping(b"12345678")
        wire.sendall(connection.data_to_send())
        eventually(lambda: server.engine.open == 1)
        answered = False
        while not answered:
            answered = any(
                isinstance(event, PingAckReceived) for event in connection.receive_data(wire.recv(65536))
            )
    eventually(lambda: server.engine.open == 0)


def test_a_connection_is_reused(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        for _ in range(3):
            http.post(CONVERSE, json=HELLO)
            http.post(CONVERSE, content=b"{")
        pool = http._transport._pool  # type: ignore[attr-defined]
        assert len(pool.connections) == 1
        assert pool.connections[0]._connection._request_count == 6


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The request body is not valid JSON."),
        (b"{} {}", "The request body is not valid JSON."),
        (b"\xef\xbb\xbf{}", "The request body is not valid JSON."),
        (b'{"inferenceConfig": {"temperature": NaN}}', "The request body is not valid JSON."),
        (b'{"inferenceConfig": {"temperature": Infinity}}', "The request body is not valid JSON."),
        (
            b'{"inferenceConfig": {"temperature": 1e400}}',
            "Number out of range at 'inferenceConfig.temperature'",
        ),
        (
            b'{"messages": [{"role": "user", "content": [{"text": "\\ud800"}]}]}',
            "The request body is not valid JSON.",
        ),
        (
            b'{"messages": [{"role": "user", "content": [{"text": "\xff"}]}]}',
            "The request body is not valid JSON.",
        ),
        (b'{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "The request body is nested too deeply."),
        (b"[]", "Start of list found where not expected"),
        (
            b'{"inferenceConfig": {"maxTokens": "5"}}',
            "STRING_VALUE cannot be converted to Integer at 'inferenceConfig.maxTokens'",
        ),
        (
            b'{"inferenceConfig": {"maxTokens": true}}',
            "BOOLEAN_VALUE cannot be converted to Integer at 'inferenceConfig.maxTokens'",
        ),
        (
            b'{"messages": [{"role": "user", "content": [{"text": 5}]}]}',
            "NUMBER_VALUE cannot be converted to String at 'messages[0].content[0].text'",
        ),
        (b'{"messages": {}}', "Start of structure or map found where not expected at 'messages'"),
        (b'{"messages": [null]}', "NULL_VALUE cannot be converted to Structure at 'messages[0]'"),
    ],
)
def test_what_is_not_the_json_of_the_shape(http: httpx.Client, body: bytes, message: str) -> None:
    assert_error(http.post(CONVERSE, content=body), 400, "SerializationException", message)


@pytest.mark.parametrize(
    "path", ["/", "/model/x/nothing", "/converse", "/foundation-models/", "/model/x/converse/", "/docs"]
)
def test_unknown_operations(http: httpx.Client, path: str) -> None:
    response = http.post(path, json=HELLO)
    assert response.status_code == 404
    assert response.headers["x-amzn-errortype"] == "UnknownOperationException"
    uuid.UUID(response.headers["x-amzn-requestid"])


def test_a_known_path_with_another_method(http: httpx.Client) -> None:
    response = http.get(CONVERSE)
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")


@pytest.mark.parametrize(
    "model",
    [
        "meta.llama3-8b-instruct-v1%3A0",
        "meta.llama3-8b-instruct-v1:0",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.meta.llama3-8b-instruct-v1%3A0",
        "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0",
    ],
)
def test_model_ids_as_clients_encode_them(http: httpx.Client, model: str) -> None:
    assert http.post(f"/model/{model}/converse", json=HELLO).status_code == 200


@pytest.mark.parametrize(
    "model", ["", "..%2Fx", "a%2Fb", "meta.llama3%253A0", "%FF", "a%20b", "a%00b", "x" * 2049]
)
def test_model_ids_that_are_none(http: httpx.Client, model: str) -> None:
    response = http.post(f"/model/{model}/converse", json=HELLO)
    assert_error(response, 400, "ValidationException", "The provided model identifier is invalid.")


def test_a_body_over_the_limit() -> None:
    with running(ScriptedEngine(), limits=ApiLimits(max_body_bytes=1000)) as server:
        for options in ({}, {"http1": False, "http2": True}):
            with httpx.Client(base_url=server.url, **options) as http:
                for size in (1001, 3000, 200_000):
                    assert_error(
                        http.post(CONVERSE, content=bytes(size)),
                        413,
                        "RequestEntityTooLargeException",
                        "Request body must not be larger than 1000 bytes.",
                    )
                    assert_error(
                        http.post(INVOKE, content=bytes(size)),
                        400,
                        "ValidationException",
                        "1 validation error detected: Value at 'body' failed to satisfy constraint: "
                        "Member must have length less than or equal to 1000",
                    )


def test_a_body_that_does_not_come() -> None:
    limits = ApiLimits(body_timeout=0.2)
    with (
        running(ScriptedEngine(), limits=limits) as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        head = f"POST {CONVERSE} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        answer = b""
        while chunk := connection.recv(4096):  # the server closes: what may still come is no request
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"RequestTimeoutException" in answer
    assert b"connection: close" in answer.lower()


def test_a_context_smaller_than_the_native_body_s_default_of_512_tokens() -> None:
    with running(ScriptedEngine(context=100)) as server, httpx.Client(base_url=server.url) as http:
        assert http.post(INVOKE, json={"prompt": "Hi"}).status_code == 200
        assert_error(
            http.post(INVOKE, json={"prompt": "Hi", "max_gen_len": 512}),
            400,
            "ValidationException",
            "The maximum tokens you requested exceeds the model limit of 100. "
            "Try again with a maximum tokens value that is lower than 100.",
        )


def test_expect_100_continue(server: Server) -> None:
    body = json.dumps(HELLO).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            f"POST {CONVERSE} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_an_unforeseen_exception_tells_nobody_the_prompt(
    http: httpx.Client, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.engine.script = Script(pieces=(b"x",), error=RuntimeError("canary prompt"))
    response = http.post(CONVERSE, json=HELLO)
    assert_error(
        response,
        500,
        "InternalServerException",
        "The system encountered an unexpected error during processing. Try your request again.",
    )
    assert response.headers["x-amzn-requestid"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text + response.text


def test_health_and_metrics(http: httpx.Client, server: Server) -> None:
    http.post(CONVERSE, json=HELLO)
    http.post(CONVERSE, json={})
    assert http.get("/health/live").json() == {"status": "live"}
    ready = http.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "models": {MODEL: "ready"}})
    text = http.get("/metrics").text
    label = f'{{engine="0",model_name="{MODEL}"}}'
    for line in (
        f"vllm:kv_cache_usage_perc{label} 0.25",
        f"vllm:prompt_tokens_total{label} 7.0",
        f"outcrop_engine_restarts_total{label} 2.0",
    ):
        assert line in text
    for name in (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:generation_tokens_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:num_preemptions_total",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:inter_token_latency_seconds_bucket",
        "vllm:e2e_request_latency_seconds_count",
        f'vllm:request_success_total{{finished_reason="stop",model_name="{MODEL}"}}',
        'outcrop_http_requests_total{operation="Converse",status="400"}',
        "outcrop_http_requests_in_progress 1.0",
        "outcrop_event_loop_lag_seconds_bucket",
    ):
        assert name in text


def test_a_loop_that_is_held_up_is_seen_in_the_metrics(http: httpx.Client, server: Server) -> None:
    def lag() -> float:
        (total,) = re.findall(r"^outcrop_event_loop_lag_seconds_sum (\S+)$", http.get("/metrics").text, re.M)
        return float(total)

    before = lag()
    server.call_soon(lambda: time.sleep(0.5))
    eventually(lambda: lag() >= before + 0.3)


def test_before_the_engine_is_ready() -> None:
    engine = ScriptedEngine(starts_at_once=False)
    with running(engine, wait_ready=False) as server, httpx.Client(base_url=server.url) as http:
        assert http.get("/health/live").status_code == 200
        ready = http.get("/health/ready")
        assert (ready.status_code, ready.json()["models"]) == (503, {MODEL: "not ready"})
        assert_error(
            http.post(CONVERSE, json=HELLO),
            429,
            "ModelNotReadyException",
            "Model is not ready for inference. Wait and try your request again.",
        )
        server.call_soon(engine.release.set)
        eventually(lambda: http.get("/health/ready").status_code == 200)
        assert http.post(CONVERSE, json=HELLO).status_code == 200
    assert engine.closed


def test_an_engine_that_does_not_start() -> None:
    engine = ScriptedEngine(start_error=EngineUnavailable("out of memory"))
    with running(engine, wait_ready=False) as server, httpx.Client(base_url=server.url) as http:
        eventually(lambda: http.get("/health/ready").json()["models"] == {MODEL: "failed: out of memory"})
        response = http.post(CONVERSE, json=HELLO)
        assert_error(
            response, 503, "ServiceUnavailableException", "Bedrock is unable to process your request."
        )


def test_admission_and_drain() -> None:
    engine = ScriptedEngine(script=Script(hold=True))
    with (
        running(engine, limits=ApiLimits(max_inflight=1)) as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        with http.stream("POST", STREAM, json=HELLO) as held:
            frames = held.iter_raw()
            next(frames)
            throttled = http.post(CONVERSE, json=HELLO)
            assert_error(
                throttled, 429, "ThrottlingException", "Too many requests, please wait before trying again."
            )
            server.call_soon(lambda: drain(server.app))
            eventually(lambda: http.get("/health/ready").status_code == 503)
            assert http.get("/health/ready").json()["status"] == "draining"
            refused = http.post(CONVERSE, json=HELLO)
            assert_error(
                refused, 503, "ServiceUnavailableException", "Bedrock is unable to process your request."
            )
            assert engine.open == 1
        eventually(lambda: engine.open == 0)


def test_a_shutdown_that_runs_out_of_patience_ends_streams_properly() -> None:
    engine = ScriptedEngine(script=Script(hold=True))
    with httpx.Client(timeout=20) as http, running(engine, graceful=1) as server:
        response = http.send(http.build_request("POST", server.url + STREAM, json=HELLO), stream=True)
        chunks = response.iter_raw()
        buffer = EventStreamBuffer()
        buffer.add_data(next(chunks))
        server.uvicorn.should_exit = True
        for chunk in chunks:
            buffer.add_data(chunk)
    last = list(buffer)[-1]
    assert last.headers[":exception-type"] == "serviceUnavailableException"
    assert engine.open == 0


OPTIONS = (
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
blocks = st.fixed_dictionaries(
    {},
    optional={
        name: json_values | st.just("text")
        for name in ("text", "image", "toolUse", "cachePoint", "guardContent")
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system"]) | json_values,
        "content": st.lists(blocks, max_size=2) | json_values,
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(messages, max_size=3) | json_values,
        "system": st.lists(blocks, max_size=2) | json_values,
        "inferenceConfig": json_values
        | st.dictionaries(
            st.sampled_from(["maxTokens", "temperature", "topP", "stopSequences"]), json_values, max_size=4
        ),
        **dict.fromkeys(OPTIONS, json_values),
    },
)
natives = json_values | st.dictionaries(
    st.sampled_from(["prompt", "temperature", "top_p", "max_gen_len", "images"]), json_values, max_size=4
)
fuzz = settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(body=requests | json_values, streaming=st.booleans())
def test_no_converse_body_is_the_servers_fault(http: httpx.Client, body: Any, streaming: bool) -> None:
    response = http.post(STREAM if streaming else CONVERSE, content=json.dumps(body))
    assert response.status_code in (200, 400)
    assert response.status_code == 200 or response.json()["message"]


@fuzz
@given(body=natives)
def test_no_native_body_is_the_servers_fault(http: httpx.Client, body: Any) -> None:
    response = http.post(INVOKE, content=json.dumps(body))
    assert response.status_code in (200, 400)
    assert response.status_code == 200 or response.json()["message"]


@fuzz
@given(body=st.binary(max_size=100))
def test_no_bytes_are_the_servers_fault(http: httpx.Client, body: bytes) -> None:
    assert http.post(CONVERSE, content=body).status_code == 400
    assert http.post(INVOKE, content=gzip.compress(body)).status_code == 400
