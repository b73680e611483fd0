"""The outermost layer of the API: what every answer has, whichever route gave it.

A request id in `x-amzn-RequestId`, an error body for everything that was raised, and a count in the metrics.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outcrop.api import errors, failures
from outcrop.api.admission import ApiLimits
from outcrop.api.anthropic import errors as anthropic_errors
from outcrop.api.body import discard_body
from outcrop.api.connection import BODY_SEND, REQUEST_ID, ClientDisconnected
from outcrop.api.errors import ApiError
from outcrop.api.openai import errors as openai_errors
from outcrop.telemetry import logs
from outcrop.telemetry.metrics import Metrics

_CLIENT_GONE = 499

Endpoint = Any
"""What starlette puts into the scope as the endpoint of the route it chose."""


class Envelope:
    """ASGI middleware around every route."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, limits: ApiLimits, operations: Mapping[Endpoint, str]
    ) -> None:
        """`operations`: each route's endpoint and the name that the metrics count it under."""
        self._app = app
        self._metrics = metrics
        self._limits = limits
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID] = str(uuid.uuid4())
        logs.request_id.set(scope[REQUEST_ID])
        begun = perf_counter()
        scope[BODY_SEND] = send
        exchange = _Exchange(scope[REQUEST_ID], receive, send)
        self._metrics.request_started()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnected:
            exchange.status = _CLIENT_GONE
        except asyncio.CancelledError as exc:
            # The server's patience with a shutdown has run out. This is the task's last act, and what it
            # lets out is logged as a fault of the application: so the cancellation ends here.
            await self._answer_error(exc, scope, exchange)
        except Exception as exc:
            await self._answer_error(exc, scope, exchange)
        finally:
            operation = self._operations.get(scope.get("endpoint"), "unknown")
            self._metrics.request_ended(operation, exchange.status)
            if logs.access.isEnabledFor(logging.INFO):
                logs.access.info(
                    "%s %d",
                    operation,
                    exchange.status,
                    extra={
                        "operation": operation,
                        "status": exchange.status,
                        "seconds": round(perf_counter() - begun, 6),
                    },
                )

    async def _answer_error(self, exc: BaseException, scope: Scope, exchange: _Exchange) -> None:
        if isinstance(exc, asyncio.CancelledError):
            error = errors.service_unavailable()
        else:
            failures.log_unexpected(exc, exchange.request_id)
            error = failures.from_exception(exc)
        if exchange.response_started:
            return  # Half an answer cannot be taken back: the server closes the connection.
        try:
            if not exchange.body_touched:
                await discard_body(exchange.receive, self._limits)
            answer = _response(error, scope["path"])
            await answer(scope, exchange.receive, exchange.send)
        except ClientDisconnected:
            exchange.status = _CLIENT_GONE


def _response(error: ApiError, path: str) -> Response:
    """The error in the form of the API that was called."""
    if path.startswith("/openai/"):
        return openai_errors.response(error)
    if path.startswith("/anthropic/"):
        return anthropic_errors.response(error)
    return error.response()


class _Exchange:
    """One request and its answer, with what has become of them so far."""

    def __init__(self, request_id: str, receive: Receive, send: Send) -> None:
        self.request_id = request_id
        self.status = _CLIENT_GONE
        self.response_started = False
        self.body_touched = False
        self._body_complete = False
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.body_touched = True
            self._body_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.response_started = True
            self.status = message["status"]
            headers = [*message["headers"], (b"x-amzn-requestid", self.request_id.encode())]
            if self.body_touched and not self._body_complete:
                # What is still to come of the body must not be taken for the next request.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)
