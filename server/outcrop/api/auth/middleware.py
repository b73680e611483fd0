"""ASGI: no request gets past without a principal."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outcrop.api import errors
from outcrop.api.admission import ApiLimits
from outcrop.api.auth.authenticator import Authenticator, Pending
from outcrop.api.auth.canonical import RequestHead
from outcrop.api.auth.principal import LOCAL, SCOPE_KEY
from outcrop.api.body import read_body, replay
from outcrop.api.errors import ApiError

PUBLIC_PATHS = frozenset(("/health/live", "/health/ready"))
"""What a load balancer asks, which has no key."""

_NATIVE_BODIES = ("/invoke", "/invoke-with-response-stream")

_UNVERIFIED_BODIES = 8
"""How many bodies of the greatest length may be held in memory for callers not yet known."""


class Authentication:
    """Around the routes, inside `Envelope`, which answers what is raised here.

    A signature covers the body, so a signed request's is read before it is routed, within the limits of
    `ApiLimits`, and handed on from memory. authenticator: None lets everybody in as `LOCAL`. A request that
    has a principal already (`outcrop.api.sagemaker`) keeps it.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator | None, limits: ApiLimits) -> None:
        self._app = app
        self._authenticator = authenticator
        self._limits = limits
        self._unverified = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] == "lifespan" or scope["path"] in PUBLIC_PATHS or SCOPE_KEY in scope
        if not known:
            if self._authenticator is None:
                scope[SCOPE_KEY] = LOCAL
            else:
                receive = await self._authenticate(self._authenticator, scope, receive)
        await self._app(scope, receive, send)

    async def _authenticate(self, authenticator: Authenticator, scope: Scope, receive: Receive) -> Receive:
        """Put the principal into the scope; what the routes are to receive from. Raises ApiError."""
        client = scope.get("client")
        found = authenticator.begin(RequestHead.of(scope), client[0] if client else "")
        if not isinstance(found, Pending):
            scope[SCOPE_KEY] = found
            return receive
        body, payload_hash = await self._read(scope, receive)
        scope[SCOPE_KEY] = authenticator.finish(found, payload_hash)
        return replay(body, receive)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[bytes, str]:
        """The body and its SHA-256, in hex."""
        digest = hashlib.sha256()
        async with self._counted(receive) as counted:

            async def hashed() -> Message:
                message = await counted()
                digest.update(message.get("body", b""))
                return message

            body = await read_body(Request(scope, hashed), self._limits, self._too_large(scope))
        return body, digest.hexdigest()

    @asynccontextmanager
    async def _counted(self, receive: Receive) -> AsyncIterator[Receive]:
        """`receive`, refusing more when strangers together have sent too much. Raises ThrottlingException."""
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held += size
            self._unverified += size
            if self._unverified > _UNVERIFIED_BODIES * self._limits.max_body_bytes:
                raise errors.too_many_requests()
            return message

        try:
            yield counted
        finally:
            self._unverified -= held

    def _too_large(self, scope: Scope) -> ApiError:
        """As the route would say it: the service's operations do not agree on this."""
        limit = self._limits.max_body_bytes
        native = scope["path"].endswith(_NATIVE_BODIES)
        return errors.body_too_long(limit) if native else errors.entity_too_large(limit)
