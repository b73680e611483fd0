"""What strangers send to an open port, byte for byte."""

from __future__ import annotations

import json
import socket
import time

import h2.connection
import h2.events
import pytest

from .doubles import ScriptedEngine
from .server import PATIENCE, Server, running

MODEL = "meta.llama3-8b-instruct-v1:0"
PATH = f"/model/{MODEL}/converse"
HELLO = json.dumps({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}).encode()

BEGINNINGS = {
    "of a method": b"POS",
    "of a head": f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncont".encode(),
    "of a second head": b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\nGET /health",
    "of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
    "of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100,
    "of nothing": b"",
}


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)


def read_all(wire: socket.socket) -> bytes:
    answer = b""
    while chunk := wire.recv(65536):
        answer += chunk
    return answer


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_request_that_only_begins_does_not_hold_its_connection(beginning: bytes) -> None:
    with running(ScriptedEngine(), keep_alive=1) as server, connect(server) as wire:
        wire.sendall(beginning)
        read_all(wire)  # ends when the server closes


def test_a_head_that_trickles_in_does_not_hold_its_connection() -> None:
    with running(ScriptedEngine(), keep_alive=1) as server, connect(server) as wire:
        wire.sendall(b"GET /health/live HTTP/1.1\r\nx: ")
        wire.settimeout(0.1)
        deadline = time.monotonic() + PATIENCE
        closed = False
        while not closed:
            assert time.monotonic() < deadline, "the server waits for as long as something comes"
            try:
                wire.sendall(b"x")
                closed = wire.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                closed = True


def test_the_time_for_a_head_does_not_count_against_the_answer() -> None:
    """A call whose head came in two pieces goes on for longer than its head was allowed to."""
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(HELLO)}\r\n\r\n".encode()
    with running(ScriptedEngine(), keep_alive=2) as server, connect(server) as wire:
        wire.sendall(head[:20])
        time.sleep(0.05)  # else both pieces may arrive as one
        wire.sendall(head[20:])
        time.sleep(2.5)
        wire.sendall(HELLO)
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_path_that_is_not_ascii(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with connect(server) as wire:
        wire.sendall(b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_all(wire).startswith(b"HTTP/1.1 400 ")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def head_h2(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(b":method", b"POST"), (b":path", path), (b":scheme", b"http"), (b":authority", b"x")]


def until_ended(
    wire: socket.socket, connection: h2.connection.H2Connection, streams: int
) -> list[h2.events.Event]:
    """Everything that happens until so many streams have ended, one way or the other."""
    happened: list[h2.events.Event] = []
    ends = (h2.events.StreamEnded, h2.events.StreamReset)
    while sum(isinstance(event, ends) for event in happened) < streams:
        received = wire.recv(65536)
        assert received, "the server closed the connection"
        happened += connection.receive_data(received)
    return happened


def test_an_h2_path_that_is_not_ascii_costs_its_own_stream_alone(server: Server) -> None:
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    connection.send_headers(1, head_h2(b"/\xff"), end_stream=True)
    connection.send_headers(3, head_h2(PATH.encode()))
    connection.send_data(3, HELLO, end_stream=True)
    with connect(server) as wire:
        wire.sendall(connection.data_to_send())
        happened = until_ended(wire, connection, 2)
    assert [e.stream_id for e in happened if isinstance(e, h2.events.StreamReset)] == [1]
    assert [e.stream_id for e in happened if isinstance(e, h2.events.StreamEnded)] == [3]


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("converse", b"A conversation must start with a user message."),
        ("converse-stream", b"A conversation must start with a user message."),
        ("invoke", b"Malformed input request"),
        ("nothing", b"The requested operation is not recognized"),
    ],
)
def test_an_h2_request_that_ends_with_its_head_is_answered(server: Server, verb: str, message: bytes) -> None:
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    connection.send_headers(1, head_h2(f"/model/{MODEL}/{verb}".encode()), end_stream=True)
    with connect(server) as wire:
        wire.sendall(connection.data_to_send())
        happened = until_ended(wire, connection, 1)
    answer = b"".join(event.data for event in happened if isinstance(event, h2.events.DataReceived))
    assert message in answer
