"""What answering needs of the client's connection: to stop working when it is gone, and to stream to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from outcrop.api import errors, eventstream, failures
from outcrop.api.errors import ApiError

T = TypeVar("T")

REQUEST_ID = "outcrop.request_id"
"""Where the ASGI scope carries the id of its request."""


def request_id_of(scope: Scope) -> str:
    """The request's id, as in its answer's `x-amzn-RequestId`."""
    return str(scope[REQUEST_ID])


class ClientDisconnected(Exception):
    """The client went away before its answer was complete; there is nobody to answer."""


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled and waited for when the client goes away first.

    The request's body must have been read. Raises ClientDisconnected, or what `work` raises.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnected
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True)
class StreamForm:
    """How a protocol streams: the content type, and its form of an error in a stream that has begun."""

    content_type: str
    failure: Callable[[ApiError], bytes]


EVENT_STREAM = StreamForm(eventstream.CONTENT_TYPE, ApiError.event)


class StreamResponse(Response):
    """A stream whose status is decided by its first frames.

    The head is sent once `frames` has yielded: what it raises before that becomes an ordinary HTTP error,
    what it raises later the stream's last frame. `frames` is closed when the client goes away.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        form: StreamForm = EVENT_STREAM,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={"content-type": form.content_type, **(headers or {})})
        del self.headers["content-length"]
        self._frames = frames
        self._failure = form.failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_disconnected(receive, self._stream(send, request_id_of(scope)))

    async def _stream(self, send: Send, request_id: str) -> None:
        async with aclosing(self._frames) as frames:
            first = await anext(frames)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send_frame(send, first)
            try:
                async for frame in frames:
                    await _send_frame(send, frame)
            except asyncio.CancelledError:
                # The server is stopping, or the client is gone and this frame goes nowhere.
                await send(_last(self._failure(errors.service_unavailable())))
                raise
            except Exception as exc:
                failures.log_unexpected(exc, request_id)
                await send(_last(self._failure(failures.from_exception(exc))))
            else:
                await send(_last(b""))


async def _send_frame(send: Send, frame: bytes) -> None:
    await send({"type": "http.response.body", "body": frame, "more_body": True})


def _last(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": False}
