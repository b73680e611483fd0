"""Streamed `POST /v1/completions` calls over HTTP/1.1, with the time of every piece of the answer.

The client shares the machine's cores with the server it measures, so it does no more than it must: one
connection a call, the event stream cut into lines, and nothing of a piece read but whether it is one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_PATIENCE = 600  # seconds


@dataclass(frozen=True, slots=True)
class Request:
    """prompt: token ids. The answer has exactly `max_tokens` tokens, whatever they are."""

    prompt: list[int]
    max_tokens: int


@dataclass(slots=True)
class Call:
    """What came of a request. begun, pieces: seconds on the monotonic clock; pieces: when each arrived.
    output_tokens: as the server counts them."""

    begun: float
    pieces: list[float] = field(default_factory=list)
    output_tokens: int = 0


class CompletionError(RuntimeError):
    """The server refused a call or did not finish it; the message has its words."""


async def run_load(url: str, model: str, requests: Sequence[Request]) -> list[Call]:
    """All requests at once. Raises CompletionError, and TimeoutError if they take unreasonably long."""
    async with asyncio.timeout(_PATIENCE):
        return list(await asyncio.gather(*(complete(url, model, request) for request in requests)))


async def complete(url: str, model: str, request: Request) -> Call:
    """One call. url: of the endpoint itself, such as http://127.0.0.1:8000/v1/completions."""
    body = json.dumps(
        {
            "model": model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    call = Call(time.perf_counter())
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
    try:
        writer.write(head.encode() + body)
        async for data in _events(reader):
            _take(call, data)
    finally:
        writer.close()
    if call.output_tokens != request.max_tokens or not call.pieces:
        raise CompletionError(f"{url}: {call.output_tokens} tokens came, {request.max_tokens} were asked for")
    return call


def _take(call: Call, data: bytes) -> None:
    now = time.perf_counter()
    # The counts come once, in the last event or beside its last piece; the others need not be parsed.
    if b'"usage":{' in data.replace(b" ", b""):
        event = json.loads(data)
        call.output_tokens = event["usage"]["completion_tokens"]
        if event["choices"]:
            call.pieces.append(now)
    elif data.startswith(b'{"error"'):
        raise CompletionError(data.decode(errors="replace"))
    else:
        call.pieces.append(now)


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of each server-sent event but the closing [DONE]."""
    status, headers = await _head(reader)
    if status != 200:
        raise CompletionError(f"status {status}: {(await reader.read(2000)).decode(errors='replace')}")
    rest = b""
    async for data in _body(reader, chunked=headers.get("transfer-encoding", "").lower() == "chunked"):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                yield line[len(b"data: ") :]


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs: list[Any] = [line.partition(":") for line in lines if line]
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
    """The parts of a body, as they come."""
    if not chunked:
        while data := await reader.read(1 << 16):
            yield data
        return
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        yield (await reader.readexactly(size + 2))[:-2]
