"""The last requests and their answers, for developers who want to see what their application sends.

In memory, and nowhere else: prompts and answers reach no log and no file. Off unless it is asked for.
"""

from __future__ import annotations

import base64
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outcrop.api import eventstream, failures
from outcrop.api.auth.principal import principal_of
from outcrop.api.connection import BODY_SEND, request_id_of
from outcrop.api.responses import json_response

PATH = "/inspector"

MAX_BODY_BYTES = 256 * 1024
"""Kept of a request's body, and of an answer's."""

_DOCUMENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass(slots=True)
class _Body:
    """What is kept of a body. size: of all of it, in bytes."""

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    content_type: str = ""

    def add(self, chunk: bytes) -> None:
        if (room := MAX_BODY_BYTES - self.size) > 0:
            self.chunks.append(chunk[:room])
        self.size += len(chunk)

    def shown(self) -> Any:
        """JSON as JSON, the events of a stream as a list, other text as text. Of a body that is longer than
        what is kept, the beginning as text."""
        body = b"".join(self.chunks)
        if self.size > MAX_BODY_BYTES:
            return body.decode("utf-8", "replace")
        if self.content_type == eventstream.CONTENT_TYPE:
            return [_event(kind, message) for kind, message in eventstream.split(body)]
        try:
            return _DOCUMENT.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return body.decode("utf-8", "replace")


@dataclass(slots=True)
class _Exchange:
    """One request and its answer. status: 0 while there is no answer. seconds: until the answer was whole."""

    request_id: str
    operation: str
    tenant: str
    method: str
    path: str
    arrived: float = field(default_factory=time.time)
    status: int = 0
    seconds: float | None = None
    request: _Body = field(default_factory=_Body)
    answer: _Body = field(default_factory=_Body)

    def shown(self) -> dict[str, Any]:
        return {
            "requestId": self.request_id,
            "operation": self.operation,
            "method": self.method,
            "path": self.path,
            "arrived": datetime.fromtimestamp(self.arrived, UTC).isoformat(timespec="milliseconds"),
            "status": self.status or None,
            "seconds": self.seconds,
            "request": self.request.shown(),
            "requestBytes": self.request.size,
            "answer": self.answer.shown(),
            "answerBytes": self.answer.size,
        }


class Inspector:
    """Keeps the last `most` exchanges of the routes that it is put around, and shows them.

    Who may look is for the guard around its route (`outcrop:InspectRequests`), and everybody sees the
    exchanges of the own tenant alone. A server that asks nobody for credentials listens on loopback only, and
    there all are one tenant.
    """

    def __init__(self, most: int) -> None:
        self._exchanges: deque[_Exchange] = deque(maxlen=most)

    def routes(self) -> list[Route]:
        return [Route(PATH, self._show, methods=["GET"], name="inspect")]

    def around(self, route: Route) -> Route:
        """The same route, watched."""
        watched = Route(route.path, route.endpoint, methods=route.methods, name=route.name)
        watched.app = _WatchedRoute(route.app, self._exchanges, route.name)  # what is around it stays
        return watched

    async def _show(self, request: Request) -> Response:
        """The newest first."""
        tenant = principal_of(request.scope).tenant
        mine = [each.shown() for each in reversed(self._exchanges) if each.tenant == tenant]
        return json_response({"requests": mine})


class _WatchedRoute:
    """One route. ASGI middleware between the router and the endpoint."""

    def __init__(self, app: ASGIApp, exchanges: deque[_Exchange], operation: str) -> None:
        self._app = app
        self._exchanges = exchanges
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = principal_of(scope).tenant
        exchange = _Exchange(request_id_of(scope), self._operation, tenant, scope["method"], scope["path"])
        self._exchanges.append(exchange)
        send_body: Send = scope[BODY_SEND]

        async def watched_receive() -> Message:
            message = await receive()
            exchange.request.add(message.get("body", b""))
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.answer.content_type = dict(message["headers"]).get(b"content-type", b"").decode()
            else:
                exchange.answer.add(message.get("body", b""))
            await send(message)

        async def watched_send_body(message: Message) -> None:
            exchange.answer.add(message.get("body", b""))
            await send_body(message)

        try:
            watched = {**scope, BODY_SEND: watched_send_body}
            await self._app(watched, watched_receive, watched_send)
        except Exception as exc:
            error = failures.from_exception(exc)
            if not exchange.status:
                exchange.status = error.kind.status
                exchange.answer.add(msgspec.json.encode({"message": error.message}))
            raise
        finally:
            exchange.seconds = round(time.time() - exchange.arrived, 3)


def _event(kind: str, message: bytes) -> dict[str, Any]:
    """An event with its JSON; of InvokeModel's chunks what is in their bytes."""
    body = _DOCUMENT.decode(eventstream.payload(message))
    if kind == "chunk":
        body = _DOCUMENT.decode(base64.b64decode(body["bytes"]))
    return {kind or "exception": body}
