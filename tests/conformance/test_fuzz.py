"""Whatever is sent, an answer comes, it is no fault of the server's, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions

from ..api.server import Server, eventually
from . import surface
from .answers import assert_answer
from .conftest import Serve
from .folder_buckets import FolderBuckets
from .service import OPERATIONS, Wire, assert_error, parse
from .strategies import abused, documents, json_values, spoilt

REFUSALS = {
    "ValidationException",
    "SerializationException",
    "ResourceNotFoundException",
}
JSON_BODIES = sorted({"Converse", "ConverseStream", "CountTokens"} & OPERATIONS.keys())
NATIVE_BODIES = ["InvokeModel", "InvokeModelWithResponseStream"]
WITH_BODIES = JSON_BODIES + NATIVE_BODIES
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

quick = settings(max_examples=examples(40), suppress_health_check=CHECKS)
long = settings(max_examples=2000, suppress_health_check=CHECKS)


@pytest.fixture(scope="module")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, which has nothing left to do when the module ends."""
    control = ControlOptions(FolderBuckets(tmp_path_factory.mktemp("buckets")), JobOptions(side_by_side=0))
    with serve(control=control) as server:
        before = server.call(_tasks())
        yield server
        eventually(lambda: is_idle(server))
        eventually(lambda: server.call(_tasks()) <= before)


@pytest.fixture(scope="module")
def http(server: Server, patience: float) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=patience) as client:
        yield client


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def is_idle(server: Server) -> bool:
    """No request is admitted, runs, waits or holds a KV block."""
    return server.app.state.admission.inflight == 0 and bool(server.engine.idle)


def assert_answered(name: str, response: httpx.Response) -> None:
    """A success in every detail, or a refusal that says what is wrong."""
    operation = OPERATIONS[name]
    if response.status_code == 200:
        assert_answer(name, response)
    else:
        code = parse(operation, response)["Error"]["Code"]
        assert code in REFUSALS, (code, response.text)
        assert_error(operation, response, code)


def send(http: httpx.Client, server: Server, name: str, wire: Wire) -> None:
    assert_answered(name, wire.send(http))
    eventually(lambda: is_idle(server))


def check_spoilt(http: httpx.Client, server: Server, name: str, body: Any) -> None:
    operation = OPERATIONS[name]
    wire = Wire.of(operation, surface.request(operation))
    send(http, server, name, Wire(wire.method, wire.path, json.dumps(body).encode()))


natives = st.fixed_dictionaries(
    {"prompt": st.text(max_size=10)},
    optional={
        "max_gen_len": st.integers(1, 5),
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "images": json_values,
    },
)


@pytest.mark.parametrize("name", JSON_BODIES)
@quick
@given(data=st.data())
def test_requests_of_the_model(http: httpx.Client, server: Server, name: str, data: st.DataObject) -> None:
    check_spoilt(http, server, name, data.draw(documents(OPERATIONS[name])))


@pytest.mark.parametrize("name", JSON_BODIES)
@quick
@given(data=st.data())
def test_spoilt_requests(http: httpx.Client, server: Server, name: str, data: st.DataObject) -> None:
    check_spoilt(http, server, name, data.draw(spoilt(documents(OPERATIONS[name]))))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", JSON_BODIES)
@long
@given(data=st.data())
def test_spoilt_requests_at_length(
    http: httpx.Client, server: Server, name: str, data: st.DataObject
) -> None:
    check_spoilt(http, server, name, data.draw(spoilt(documents(OPERATIONS[name]))))


@pytest.mark.parametrize("name", NATIVE_BODIES)
@quick
@given(body=spoilt(natives))
def test_spoilt_native_bodies(http: httpx.Client, server: Server, name: str, body: Any) -> None:
    check_spoilt(http, server, name, body)


@pytest.mark.parametrize("name", WITH_BODIES)
@quick
@given(data=st.data())
def test_mishandled_bytes(http: httpx.Client, server: Server, name: str, data: st.DataObject) -> None:
    send(http, server, name, data.draw(abused(OPERATIONS[name])))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WITH_BODIES)
@long
@given(data=st.data())
def test_mishandled_bytes_at_length(
    http: httpx.Client, server: Server, name: str, data: st.DataObject
) -> None:
    send(http, server, name, data.draw(abused(OPERATIONS[name])))


# -- clients that leave ----------------------------------------------------------------------------


def long_answer(name: str) -> Wire:
    """A request whose answer takes a while."""
    operation = OPERATIONS[name]
    params = surface.request(operation)
    if name in NATIVE_BODIES:
        params |= {"body": json.dumps({"prompt": "Hi", "max_gen_len": 250})}
    else:
        params |= {"inferenceConfig": {"maxTokens": 250}}
    return Wire.of(operation, params)


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("name", sorted(set(WITH_BODIES) - {"CountTokens"}))
@pytest.mark.parametrize("is_chunked", [False, True])
@settings(max_examples=10, suppress_health_check=CHECKS)
@given(sent=st.floats(0, 1), read=st.integers(0, 1500))
def test_clients_that_leave(
    server: Server, patience: float, name: str, is_chunked: bool, sent: float, read: int
) -> None:
    """A client sends a part of its request, or all of it, reads a part of the answer, and is gone."""
    wire = long_answer(name)
    framing = "transfer-encoding: chunked" if is_chunked else f"content-length: {len(wire.body)}"
    head = f"POST {wire.path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{framing}\r\n\r\n".encode()
    request = head + (chunked(wire.body) if is_chunked else wire.body)
    part = request if sent > 0.5 else request[: int(len(request) * sent * 2)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=patience) as connection:
        connection.sendall(part)
        if part == request:
            received = 0
            while received < read and (data := connection.recv(read - received)):
                received += len(data)
    eventually(lambda: is_idle(server))


def test_the_server_still_answers(http: httpx.Client, server: Server) -> None:
    for name in OPERATIONS.keys() - surface.NOT_OFFERED.keys():
        operation = OPERATIONS[name]
        assert_answer(name, Wire.of(operation, surface.request(operation)).send(http))
    eventually(lambda: is_idle(server))
