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

    def parts(self, count: int) -> list[Caller]:
        """The caller of each of `count` generations that one request asks for; the engine wants them told
        apart."""
        if count == 1:
            return [self]
        return [Caller(f"{self.request_id}-{index}", self.principal) for index in range(count)]
