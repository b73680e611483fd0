"""Who a generation is for."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from outcrop.api.auth.principal import Principal, principal_of
from outcrop.api.connection import request_id_of


@dataclass(frozen=True, slots=True)
class Caller:
    """One request of an authenticated principal."""

    request_id: str
    principal: Principal

    @classmethod
    def of(cls, request: Request) -> Caller:
        return cls(request_id_of(request.scope), principal_of(request.scope))
