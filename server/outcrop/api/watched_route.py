"""A route whose requests and answers somebody looks at as they pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outcrop.api import failures
from outcrop.api.connection import BODY_SEND
from outcrop.api.errors import ApiError


class Exchange(Protocol):
    """One request and its answer, told of as they come. Called on the event loop: nothing here may take
    long."""

    def asked(self, chunk: bytes) -> None:
        """A piece of the request's body."""

    def began(self, status: int, content_type: str) -> None:
        """The head of the answer."""

    def answered(self, chunk: bytes) -> None:
        """A piece of the answer's body."""

    def failed(self, error: ApiError) -> None:
        """There is an error instead of an answer, or of the rest of it."""

    def ended(self) -> None:
        """All has been said, or the client is gone."""


Begin = Callable[[Scope], Exchange | None]
"""Who looks at a request; None for nobody, which costs nothing more."""


def watched(route: Route, begin: Begin) -> Route:
    """The same route, watched."""
    other = Route(route.path, route.endpoint, methods=route.methods, name=route.name)
    other.app = _Watched(route.app, begin)  # what is around it stays
    return other


class _Watched:
    """ASGI middleware between the router and the endpoint."""

    def __init__(self, app: ASGIApp, begin: Begin) -> None:
        self._app = app
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._begin(scope)
        if exchange is None:
            await self._app(scope, receive, send)
            return
        send_body: Send = scope[BODY_SEND]

        async def watched_receive() -> Message:
            message = await receive()
            exchange.asked(message.get("body", b""))
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                content_type = dict(message["headers"]).get(b"content-type", b"").decode()
                exchange.began(message["status"], content_type)
            else:
                exchange.answered(message.get("body", b""))
            await send(message)

        async def watched_send_body(message: Message) -> None:
            exchange.answered(message.get("body", b""))
            await send_body(message)

        try:
            await self._app({**scope, BODY_SEND: watched_send_body}, watched_receive, watched_send)
        except Exception as exc:
            exchange.failed(failures.from_exception(exc))
            raise
        finally:
            exchange.ended()
