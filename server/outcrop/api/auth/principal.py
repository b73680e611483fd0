"""On whose behalf a request is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import Scope

from outcrop.api import errors
from outcrop.api.auth.policy import ALLOW_ALL, Effect, Policy
from outcrop.api.auth.quota import Quota

SCOPE_KEY = "outcrop.principal"
"""Where the ASGI scope carries the principal of its request."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. tenant: callers that share one share cached prefixes. context: what
    conditions of its policy may ask about, by condition key in lower case."""

    key_id: str
    tenant: str
    arn: str
    policy: Policy
    quota: Quota
    context: Mapping[str, str] = field(default_factory=dict)

    def authorize(self, action: str, *resources: str) -> None:
        """Raises AccessDeniedException unless the policy allows `action` (`bedrock:InvokeModel`) on a
        resource. Several are names of one: it is allowed by any, denied by any. None at all is `*`."""
        named = resources or ("*",)
        context = dict(self.context)
        if profile := next((name for name in named if "inference-profile/" in name), None):
            context["bedrock:inferenceprofilearn"] = profile
        effect = self.policy.evaluate(action, named, context)
        if effect is not Effect.ALLOW:
            raise errors.not_authorized(self.arn, action, named[0], explicit=effect is Effect.DENY)

    async def admit(self) -> None:
        """Count a request. Raises ThrottlingException."""
        await self.quota.admit()

    async def admit_tokens(self, tokens: int) -> None:
        """Count a prompt. Raises ThrottlingException."""
        await self.quota.admit_tokens(tokens)

    def charge(self, tokens: int) -> None:
        """Count generated tokens."""
        self.quota.charge(tokens)


LOCAL = Principal(
    key_id="local",
    tenant="",
    arn="arn:aws:iam::000000000000:user/local",
    policy=ALLOW_ALL,
    quota=Quota(None, None, lambda: 0.0),
)
"""Whoever calls a server that asks nobody who they are."""


def principal_of(scope: Scope) -> Principal:
    """The caller of an ASGI request that has been authenticated."""
    principal = scope[SCOPE_KEY]
    assert isinstance(principal, Principal)
    return principal
