"""Which calls are logged, and what of them."""

from __future__ import annotations

from starlette.routing import Route
from starlette.types import Scope

from outcrop.api.auth.principal import principal_of
from outcrop.api.caller import TALLY
from outcrop.api.connection import request_id_of
from outcrop.api.invocation_log.delivery import Delivery
from outcrop.api.invocation_log.destination import Destination
from outcrop.api.invocation_log.invocation import Invocation
from outcrop.api.watched_route import watched

LOGGED = frozenset(
    (
        "Converse",
        "ConverseStream",
        "InvokeModel",
        "InvokeModelWithResponseStream",
        "createCompletion",
        "createChatCompletion",
        "createResponse",
        "createMessage",
    )
)
"""Operations that ask a model for an answer: the service's, and those of OpenAI's and Anthropic's APIs."""

_METADATA = b"x-amzn-bedrock-request-metadata"


class InvocationLog:
    """Gathers calls of the routes that it is put around, while there is a destination. destination: None for
    none, and then nothing is looked at."""

    def __init__(self, delivery: Delivery, most: int) -> None:
        """most: bytes of a request's body."""
        self.delivery = delivery
        self.destination: Destination | None = None
        self._most = most

    def around(self, route: Route) -> Route:
        """The same route, watched, if its operation is logged."""
        return watched(route, lambda scope: self._begin(scope, route.name)) if route.name in LOGGED else route

    def _begin(self, scope: Scope, operation: str) -> Invocation | None:
        if self.destination is None:
            return None
        invocation = Invocation(
            self.destination,
            request_id_of(scope),
            operation,
            principal_of(scope).arn,
            scope["path_params"].get("model_id", ""),
            dict(scope["headers"]).get(_METADATA, b"").decode("latin-1"),
            self._most,
            self.delivery.add,
        )
        scope[TALLY] = invocation.tally
        return invocation
