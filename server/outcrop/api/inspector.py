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
from starlette.types import Scope

from outcrop.api import eventstream
from outcrop.api.auth.principal import principal_of
from outcrop.api.connection import request_id_of
from outcrop.api.errors import ApiError
from outcrop.api.invocation_log.bodies import parsed
from outcrop.api.responses import json_response
from outcrop.api.watched_route import watched

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
        return parsed(body)


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

    def asked(self, chunk: bytes) -> None:
        self.request.add(chunk)

    def began(self, status: int, content_type: str) -> None:
        self.status = status
        self.answer.content_type = content_type

    def answered(self, chunk: bytes) -> None:
        self.answer.add(chunk)

    def failed(self, error: ApiError) -> None:
        if not self.status:
            self.status = error.kind.status
            self.answer.add(msgspec.json.encode({"message": error.message}))

    def ended(self) -> None:
        self.seconds = round(time.time() - self.arrived, 3)

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

        def begin(scope: Scope) -> _Exchange:
            tenant = principal_of(scope).tenant
            exchange = _Exchange(request_id_of(scope), route.name, tenant, scope["method"], scope["path"])
            self._exchanges.append(exchange)
            return exchange

        return watched(route, begin)

    async def _show(self, request: Request) -> Response:
        """The newest first."""
        tenant = principal_of(request.scope).tenant
        mine = [each.shown() for each in reversed(self._exchanges) if each.tenant == tenant]
        return json_response({"requests": mine})


def _event(kind: str, message: bytes) -> dict[str, Any]:
    """An event with its JSON; of InvokeModel's chunks what is in their bytes."""
    body = _DOCUMENT.decode(eventstream.payload(message))
    if kind == "chunk":
        body = parsed(base64.b64decode(body["bytes"]))
    return {kind or "exception": body}
