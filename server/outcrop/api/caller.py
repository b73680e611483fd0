"""Who a generation is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from starlette.requests import Request

from outcrop.api.auth.principal import Principal, principal_of
from outcrop.api.connection import request_id_of
from outcrop.telemetry.tracing import PROPAGATED

_BEDROCK = "aws.bedrock"
SESSION = "x-outcrop-session"
"""The header by which a client says what a request belongs to."""
_LONGEST_SESSION = 256

TALLY = "outcrop.tally"
"""Where the ASGI scope carries the tally of a request whose tokens somebody wants to know."""


@dataclass(slots=True)
class Tally:
    """The tokens of one request's generations, as they end. prompt: of the prompts; generated: of the
    answers."""

    prompt: int = 0
    generated: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """One request of an authenticated principal. trace: its headers of W3C Trace Context. provider: whose API
    it speaks, as traces call it by OpenTelemetry's conventions. session: what its client says it belongs to
    (header SESSION), whose requests are best answered by one replica; "" for nothing. tally:
    where its tokens are counted, if anywhere."""

    request_id: str
    principal: Principal
    trace: Mapping[str, str] = field(default_factory=dict)
    provider: str = _BEDROCK
    session: str = ""
    tally: Tally | None = None

    @classmethod
    def of(cls, request: Request, provider: str = _BEDROCK) -> Caller:
        trace = {name: value for name in PROPAGATED if (value := request.headers.get(name))}
        scope = request.scope
        session = request.headers.get(SESSION, "")[:_LONGEST_SESSION]
        return cls(request_id_of(scope), principal_of(scope), trace, provider, session, scope.get(TALLY))

    def parts(self, count: int) -> list[Caller]:
        """The caller of each of `count` generations that one request asks for; the engine wants them told
        apart."""
        if count == 1:
            return [self]
        return [replace(self, request_id=f"{self.request_id}-{index}") for index in range(count)]
