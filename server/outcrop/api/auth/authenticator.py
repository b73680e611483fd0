"""From what a request carries to its principal, or to the error that the service would answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from outcrop.api import errors
from outcrop.api.auth import bearer, presigned, sigv4
from outcrop.api.auth.canonical import RequestHead
from outcrop.api.auth.keyring import Grant, KeyRing
from outcrop.api.auth.principal import Principal
from outcrop.api.auth.quota import Clock, Quota
from outcrop.api.auth.shared_quota import SharedQuotas
from outcrop.api.auth.sigv4 import SignatureClaim
from outcrop.api.errors import ApiError

_BEARER = "bearer"
_API_KEY, _ANTHROPIC = b"x-api-key", b"/anthropic/"
"""Anthropic's header for an API key, and where clients of its API call."""
_CONTENT_HASH = b"x-amz-content-sha256"


@dataclass(frozen=True, slots=True)
class Pending:
    """A signed request whose body has yet to be read."""

    claim: SignatureClaim
    head: RequestHead
    source: str


class Authenticator:
    """Knows the keys of a server and counts what they use.

    region: the one that signatures must name; None for any. now: the time, in UTC; clock: for quotas.
    shared: where quotas hold over several servers.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        region: str | None,
        now: Callable[[], datetime],
        clock: Clock,
        shared: SharedQuotas | None = None,
    ) -> None:
        self._keys = keys
        self._region = region
        self._now = now
        self._clock = clock
        self._shared = shared
        self._quotas: dict[str, Quota] = {}
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Learn from now on of what other servers' keys become."""
        self._following = asyncio.create_task(self._keys.follow())

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._shared is not None:
            await self._shared.close()

    def has_keys(self) -> bool:
        """Whether anybody could be let in."""
        return not self._keys.empty(self._now().timestamp())

    def begin(self, head: RequestHead, source: str) -> Principal | Pending:
        """Look at a request's head. Whoever carries an API key is known by it; a signature is of the body
        too, and `finish` decides. source: the caller's address. Raises ApiError."""
        given = head.values(b"authorization")
        if len(given) > 1:
            raise errors.incomplete_signature("There must be one Authorization header.")
        authorization = given[0].decode("latin-1").strip() if given else ""
        api_key = head.value(_API_KEY)
        if api_key is not None and not authorization and head.path.startswith(_ANTHROPIC):
            return self._bearer(api_key, source)
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == _BEARER:
            return self._bearer(credentials.strip(), source)
        if authorization:
            claim = sigv4.from_header(head, authorization)
        elif presigned.is_presigned(head.query):
            claim = presigned.from_query(head.query)
        else:
            raise errors.missing_authentication_token()
        claim.check(self._now(), self._region)
        return Pending(claim, head, source)

    def finish(self, pending: Pending, payload_hash: str) -> Principal:
        """The principal, once the body has been hashed (SHA-256, in hex). Raises ApiError.

        The body counts whatever `x-amz-content-sha256` says: a header that differs is refused, and so are
        UNSIGNED-PAYLOAD and STREAMING-…, which no operation here accepts.
        """
        claim, head = pending.claim, pending.head
        now = self._now().timestamp()
        candidate = self._keys.signer(claim.scope.access_key_id, claim.token, now)
        holds = claim.matches(head, payload_hash, candidate.secret)
        if isinstance(candidate.grant, ApiError):
            raise candidate.grant
        if not holds or head.value(_CONTENT_HASH) not in (None, payload_hash):
            raise errors.signature_mismatch()
        return self._principal(candidate.grant, pending.source, claim.scope.region)

    def _bearer(self, token: str, source: str) -> Principal:
        now = self._now()
        if not bearer.is_short_term(token):
            grant = self._keys.bearer(token, now.timestamp())
            principal = self._principal(grant, source, None, "LONG_TERM")
        else:
            principal = self._short_term(token, source, now)
        principal.authorize("bedrock:CallWithBearerToken")
        return principal

    def _short_term(self, token: str, source: str, now: datetime) -> Principal:
        claim, head = bearer.short_term_claim(token)
        candidate = self._keys.signer(claim.scope.access_key_id, claim.token, now.timestamp())
        holds = bearer.short_term_holds(claim, head, candidate.secret)
        if not holds or isinstance(candidate.grant, ApiError):
            raise errors.invalid_bearer()
        if claim.expired(now):
            raise errors.expired_bearer()
        try:
            claim.check(now, self._region)
        except ApiError:
            raise errors.invalid_bearer() from None
        return self._principal(candidate.grant, source, claim.scope.region, "SHORT_TERM")

    def _principal(
        self, grant: Grant, source: str, region: str | None, bearer_type: str | None = None
    ) -> Principal:
        name = grant.name or grant.key_id
        arn = f"arn:aws:iam::{bearer.ACCOUNT}:user/{name}"
        tenant = grant.tenant or grant.key_id
        known = {
            "aws:currenttime": self._now().isoformat(),
            "aws:principalarn": arn,
            "aws:principaltag/tenant": tenant,
            "aws:requestedregion": region,
            "aws:sourceip": source or None,
            "aws:userid": grant.key_id,
            "aws:username": name,
            "bedrock:bearertokentype": bearer_type,
        }
        context = {key: value for key, value in known.items() if value is not None}
        return Principal(grant.key_id, tenant, arn, grant.policy, self._quota(grant), context)

    def _quota(self, grant: Grant) -> Quota:
        """The key's allowance, begun anew when its limits have changed."""
        quota = self._quotas.get(grant.key_id)
        if quota is None or quota.limits != (grant.rpm, grant.tpm):
            quota = self._quotas[grant.key_id] = self._new_quota(grant)
        return quota

    def _new_quota(self, grant: Grant) -> Quota:
        if self._shared is None:
            return Quota(grant.rpm, grant.tpm, self._clock)
        return Quota(grant.rpm, grant.tpm, self._clock, self._shared.of(grant.key_id))


def utc_now() -> datetime:
    return datetime.now(UTC)
