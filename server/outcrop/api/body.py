"""Reading a request's body within bounds of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import Message, Receive

from outcrop.api import errors
from outcrop.api.admission import ApiLimits
from outcrop.api.connection import ClientDisconnected
from outcrop.api.errors import ApiError

_DISCARD_FACTOR = 4
"""A body over its limit is read on and dropped up to this multiple of it: a client that is still sending
when the answer comes would see a broken pipe instead of the answer."""


async def read_body(request: Request, limits: ApiLimits, too_large: ApiError) -> bytes:
    """The whole body. Raises `too_large`, RequestTimeoutException or ClientDisconnected."""
    try:
        async with asyncio.timeout(limits.body_timeout):
            body = await _receive_body(request.receive, limits.max_body_bytes, limits.max_body_bytes)
    except TimeoutError:
        raise errors.body_timeout(limits.body_timeout) from None
    if body is None:
        raise too_large
    return body


async def discard_body(receive: Receive, limits: ApiLimits) -> None:
    """Drop a body that nobody will read, so that the answer reaches its sender."""
    try:
        async with asyncio.timeout(limits.body_timeout):
            await _receive_body(receive, 0, limits.max_body_bytes)
    except TimeoutError:
        pass


def replay(body: bytes, receive: Receive) -> Receive:
    """Receives the body that was read, then what the connection has still to say."""
    pending = [body]

    async def replayed() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replayed


async def _receive_body(receive: Receive, keep: int, limit: int) -> bytes | None:
    """The body if it is at most `keep` bytes, else None, read to its end or to a multiple of `limit`."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= keep:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not message.get("more_body", False) or size > limit * _DISCARD_FACTOR:
            return b"".join(chunks) if size <= keep else None
