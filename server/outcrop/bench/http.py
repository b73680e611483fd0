"""The least of an HTTP client: one connection a call, the body as it comes.

It may share the machine's cores with the server that it measures, so it does no more than it must.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_LIMIT = 1 << 20


class HttpError(RuntimeError):
    """The server refused a call. status: of its answer; the message has the beginning of its words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"status {status}: {words}")
        self.status = status


@asynccontextmanager
async def post(
    url: str, body: bytes, headers: Mapping[str, str] | None = None
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The parts of the answer's body, as they come. url: with its path as it is to be sent. Raises HttpError
    for a status that is not 200, and OSError."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    )
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), limit=_LIMIT, ssl=secure or None
    )
    try:
        writer.write(head.encode() + b"\r\n" + body)
        status, answered = await _head(reader)
        chunked = answered.get("transfer-encoding", "").lower() == "chunked"
        content = _body(reader, chunked=chunked)
        if status != 200:
            words = b"".join([part async for part in content])[:2000]
            raise HttpError(status, words.decode(errors="replace"))
        yield content
    finally:
        writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines if line]
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
    if not chunked:
        while data := await reader.read(1 << 16):
            yield data
        return
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        yield (await reader.readexactly(size + 2))[:-2]


async def server_sent_events(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event but the closing [DONE]."""
    rest = b""
    async for data in content:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                yield line[len(b"data: ") :]
