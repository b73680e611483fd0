"""Faults on request: errors, delays and broken streams, for those who test how an application copes.

A call says itself what is to happen to it, in a header or at the end of its model id, where `--` stands
for the comma and `:` for the equals sign:

    x-outcrop-fault: ThrottlingException, first=2
    meta.llama3-8b-instruct-v1:0--fault-ThrottlingException--first:2

Anything that this server does not inject for a call goes its ordinary way: a call with a delay is
validated, admitted and counted like any other, and a stream that breaks ends the work behind it.
`create_app` puts this around its routes only where `ApiLimits.fault_injection` is set; without it, neither
header nor suffix means anything.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outcrop.api import errors, eventstream
from outcrop.api.admission import ApiLimits
from outcrop.api.auth.principal import principal_of
from outcrop.api.connection import BODY_SEND, request_id_of, unless_disconnected
from outcrop.api.error_kind import INVOKE_STREAMABLE, STREAMABLE, Kind
from outcrop.api.errors import ApiError

logger = logging.getLogger(__name__)

HEADER = "x-outcrop-fault"
SUFFIX = "--fault-"

_CONNECTION = "connection"
_CODES = {kind.code: kind for kind in Kind}
_WORDS: dict[Kind, Callable[[], ApiError]] = {
    Kind.VALIDATION: errors.malformed_input,
    Kind.SERVICE_QUOTA_EXCEEDED: errors.service_quota_exceeded,
    Kind.CONFLICT: errors.conflict,
    Kind.TOO_MANY_TAGS: errors.tags_exceeded,
    Kind.RESOURCE_IN_USE: errors.resource_in_use,
    Kind.ACCESS_DENIED: errors.no_model_access,
    Kind.MISSING_AUTHENTICATION_TOKEN: errors.missing_authentication_token,
    Kind.INVALID_SIGNATURE: errors.signature_mismatch,
    Kind.UNRECOGNIZED_CLIENT: errors.unrecognized_client,
    Kind.EXPIRED_TOKEN: errors.expired_token,
    Kind.UNKNOWN_OPERATION: errors.unknown_operation,
    Kind.RESOURCE_NOT_FOUND: errors.foundation_model_not_found,
    Kind.MODEL_TIMEOUT: errors.model_timeout,
    Kind.MODEL_ERROR: errors.model_error,
    Kind.MODEL_STREAM_ERROR: errors.model_stream_error,
    Kind.MODEL_NOT_READY: errors.model_not_ready,
    Kind.THROTTLING: errors.too_many_requests,
    Kind.INTERNAL: errors.internal_error,
    Kind.SERVICE_UNAVAILABLE: errors.service_unavailable,
}
_STREAMS: dict[str, Collection[Kind]] = {
    "ConverseStream": STREAMABLE,
    "InvokeModelWithResponseStream": INVOKE_STREAMABLE,
}
"""The operations that stream, and the exceptions that may end their streams."""

_CONTENT_EVENTS = ("contentBlockDelta", "chunk")
_CLOSING_EVENTS = ("messageStop", "metadata")

_DELAY = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s)")
_COUNT = re.compile(r"[0-9]{1,6}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MAX_DELAY = 600.0
_COUNTERS = 10_000
_SHOWN = 256


# -- what is asked for -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to happen to a call, and to which of several.

    error: the answer in place of one. cut: the connection ends after the answer's head. latency: seconds
    until the call is looked at. first_token: seconds that the first content event is held back, or the
    whole answer where it is one piece. break_after: content events after which a stream ends (or the end of
    its content, if that comes first), with the exception break_with or, without one, with the connection.
    first: only to that many calls; every: only to each such call. Calls are counted for each caller and
    fault; a name of its own starts a count of its own.
    """

    error: Kind | None = None
    cut: bool = False
    latency: float = 0.0
    first_token: float = 0.0
    break_after: int | None = None
    break_with: Kind | None = None
    first: int | None = None
    every: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be together."""
        if (self.error is not None) + self.cut + (self.break_after is not None) > 1:
            raise ValueError("an answer can end in one way only")
        if self.first is not None and self.every is not None:
            raise ValueError("first and every exclude each other")
        if not (self.error or self.cut or self.latency or self.first_token or self.break_after is not None):
            raise ValueError("there is no fault in it")

    def is_due(self, number: int) -> bool:
        """Whether it happens to the call of this number, counted from 1."""
        if self.first is not None:
            return number <= self.first
        return number % (self.every or 1) == 0


def parse(text: str) -> Fault:
    """The fault that a header asks for. Raises ValidationException, which says what is accepted."""
    fields: dict[str, Any] = {}
    try:
        for item in text.split(","):
            found = _item(item.strip())
            if twice := fields.keys() & found.keys():
                raise ValueError(f"{', '.join(sorted(twice)).replace('_', '-')} is given twice")
            fields |= found
        return Fault(**fields)
    except ValueError as problem:
        raise errors.validation(
            f"The fault '{text[:_SHOWN]}' is malformed: {problem}. Give, separated by commas: one of "
            f"{', '.join(_CODES)} or {_CONNECTION}; latency=750ms; first-token=2s; "
            f"break-after=3, break-after=3:ThrottlingException or break-after=3:{_CONNECTION}; "
            "first=2 or every=3; name=mine."
        ) from None


def parse_suffix(text: str) -> Fault:
    """As `parse`, in the form that a model id can hold."""
    return parse(",".join(item.replace(":", "=", 1) for item in text.split("--")))


def _item(item: str) -> dict[str, Any]:
    name, _, value = item.partition("=")
    match name:
        case "latency" | "first-token":
            return {name.replace("-", "_"): _seconds(name, value)}
        case "break-after":
            count, _, ending = value.partition(":")
            return {"break_after": _count(name, count, least=0), "break_with": _ending(ending)}
        case "first" | "every":
            return {name: _count(name, value, least=1)}
        case "name":
            if not _NAME.fullmatch(value):
                raise ValueError("a name has 1 to 128 letters, digits, dots, hyphens and underscores")
            return {name: value}
    if item == _CONNECTION:
        return {"cut": True}
    return {"error": _kind(item)}


def _seconds(name: str, text: str) -> float:
    if (match := _DELAY.fullmatch(text)) is None:
        raise ValueError(f"{name} needs a time such as 750ms or 2s")
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1)
    if not 0 < seconds <= _MAX_DELAY:
        raise ValueError(f"{name} must be more than 0 and at most {_MAX_DELAY:g}s")
    return seconds


def _count(name: str, text: str, *, least: int) -> int:
    if not _COUNT.fullmatch(text) or int(text) < least:
        raise ValueError(f"{name} needs a number from {least} to 999999")
    return int(text)


def _ending(text: str) -> Kind | None:
    if text == _CONNECTION:
        return None
    kind = _kind(text) if text else Kind.MODEL_STREAM_ERROR
    if kind not in INVOKE_STREAMABLE:
        raise ValueError(f"no stream can end with {kind.code}")
    return kind


def _kind(code: str) -> Kind:
    try:
        return _CODES[code]
    except KeyError:
        raise ValueError(f"'{code[:_SHOWN]}' is none of the faults") from None


def error_of(kind: Kind) -> ApiError:
    """An error of this kind, in the service's words where there are any that fit every request."""
    words = _WORDS.get(kind)
    return words() if words else ApiError(kind, f"{kind.code}, injected.")


# -- how it happens --------------------------------------------------------------------------------


class FaultInjection:
    """Puts the faults that calls ask for around the routes of one application."""

    def __init__(self, limits: ApiLimits) -> None:
        self._limits = limits
        self._counts: OrderedDict[Hashable, int] = OrderedDict()

    def around(self, route: Route) -> Route:
        """The same route, open to faults."""
        return Route(
            route.path,
            route.endpoint,
            methods=route.methods,
            name=route.name,
            middleware=[Middleware(_FaultyRoute, injection=self, operation=route.name)],
        )

    def fault_of(self, scope: Scope) -> Fault | None:
        """The fault that is to happen to this call, if any, which is counted and whose model id loses its
        suffix. A header goes before a suffix. Raises ValidationException."""
        fault: Fault | None = None
        params = scope["path_params"]
        model_id, marked, suffix = params.get("model_id", "").partition(SUFFIX)
        if marked:
            scope["path_params"] = params | {"model_id": model_id}
            fault = parse_suffix(suffix)
        if given := Headers(scope=scope).getlist(HEADER):
            fault = parse(",".join(given))
        if fault is None:
            return None
        number = self._count((principal_of(scope).key_id, fault))
        return fault if fault.is_due(number) else None

    def _count(self, key: Hashable) -> int:
        """The number of this call among those of its key; of too many keys the oldest is forgotten."""
        number = self._counts.pop(key, 0) + 1
        self._counts[key] = number
        if len(self._counts) > _COUNTERS:
            self._counts.popitem(last=False)
        return number

    async def wait(self, seconds: float, receive: Receive) -> Receive:
        """Let time pass, unless the client goes away meanwhile; what it has sent can still be received, from
        the returned function. Raises ClientDisconnected."""
        ahead = _Ahead(receive, self._limits.max_body_bytes)
        await unless_disconnected(ahead.listen, asyncio.sleep(seconds))
        return ahead.receive


class _FaultyRoute:
    """One route. ASGI middleware between the router, which has found the model id, and the endpoint."""

    def __init__(self, app: ASGIApp, injection: FaultInjection, operation: str) -> None:
        self._app = app
        self._injection = injection
        self._operation = operation
        self._declared = _STREAMS.get(operation, ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._injection.fault_of(scope)
        if fault is None:
            await self._app(scope, receive, send)
            return
        self._check(fault)
        logger.info("request %s: injecting a fault into %s", request_id_of(scope), self._operation)
        if delay := fault.latency + (0 if self._declared else fault.first_token):
            receive = await self._injection.wait(delay, receive)
        if fault.error is not None:
            raise error_of(fault.error)
        if fault.cut:
            await self._begin(send)
            return  # half way through an answer, at which the server closes the connection
        answer = _FaultyAnswer(fault, self._declared, send)
        try:
            await self._app({**scope, BODY_SEND: answer.send}, receive, answer.send)
        except ApiError:
            if not answer.broken:
                raise

    async def _begin(self, send: Send) -> None:
        """The head of an answer. It does not say how long the body is: boto3 takes a body that falls short of
        its length for the whole one."""
        content_type = eventstream.CONTENT_TYPE if self._declared else "application/json"
        headers = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    def _check(self, fault: Fault) -> None:
        if self._declared and fault.break_with is not None and fault.break_with not in self._declared:
            possible = ", ".join(sorted(kind.code for kind in self._declared))
            raise errors.validation(
                f"The fault is malformed: a stream of {self._operation} cannot end with "
                f"{fault.break_with.code}, only with {possible}."
            )


class _Ahead:
    """Receives while a call is kept waiting, to notice a client that goes away."""

    def __init__(self, receive: Receive, most: int) -> None:
        """most: bytes to keep; a body that is longer is left where it is."""
        self._receive = receive
        self._room = most
        self._kept: deque[Message] = deque()

    async def listen(self) -> Message:
        if self._room < 0:
            await asyncio.Event().wait()
        message = await self._receive()
        self._kept.append(message)
        self._room -= len(message.get("body", b""))
        return message

    async def receive(self) -> Message:
        return self._kept.popleft() if self._kept else await self._receive()


class _FaultyAnswer:
    """The sending half of one call: holds back, and breaks off, what the endpoint sends.

    Breaking off raises in the endpoint, which thereby gives up the work behind the answer; what it still
    sends on its way out is dropped.
    """

    def __init__(self, fault: Fault, declared: Collection[Kind], send: Send) -> None:
        self.broken = False
        self._fault = fault
        self._declared = declared
        self._send = send
        self._is_stream = False
        self._delay = fault.first_token if declared else 0.0
        self._content_events = 0

    async def send(self, message: Message) -> None:
        if self.broken:
            return
        if message["type"] == "http.response.start":
            content_type = Headers(raw=message["headers"]).get("content-type")
            self._is_stream = content_type == eventstream.CONTENT_TYPE
            await self._send(message)
        elif self._is_stream:
            await self._send_events(message)
        else:
            await self._send(message)

    async def _send_events(self, message: Message) -> None:
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if is_last and body:  # the exception of a stream that has failed by itself
            await self._send(message)
            return
        for kind, event in eventstream.split(body):
            if kind in _CLOSING_EVENTS or (kind in _CONTENT_EVENTS and self._is_spent()):
                await self._break()
            if kind in _CONTENT_EVENTS:
                self._content_events += 1
                delay, self._delay = self._delay, 0.0
                await asyncio.sleep(delay)
            await self._send({"type": "http.response.body", "body": event, "more_body": True})
            if self._is_spent():
                await self._break()
        if is_last:
            await self._break()
            await self._send(message)

    def _is_spent(self) -> bool:
        limit = self._fault.break_after
        return limit is not None and self._content_events >= limit

    async def _break(self) -> None:
        """End the stream here, if it is to end before its time at all."""
        if self._fault.break_after is None:
            return
        if self._fault.break_with is not None:
            event = error_of(self._fault.break_with).event(self._declared)
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        self._break_off()

    def _break_off(self) -> None:
        self.broken = True
        raise errors.service_unavailable()
