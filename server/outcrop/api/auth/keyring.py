"""What a running server knows of its keys: those of the store, as they are at this moment, and the access
keys that its settings name."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from outcrop.api import errors
from outcrop.api.auth.bearer import fingerprint, long_term_key_id
from outcrop.api.auth.condition import PolicyError
from outcrop.api.auth.keys import Key, KeyStore, KeyStoreError
from outcrop.api.auth.master import MasterSecret
from outcrop.api.auth.policy import ALLOW_ALL, Policy
from outcrop.api.auth.session import open_session
from outcrop.api.errors import ApiError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key is good for. rpm, tpm: requests and tokens a minute, None for any number."""

    key_id: str
    name: str = ""
    tenant: str = ""
    policy: Policy = ALLOW_ALL
    rpm: int | None = None
    tpm: int | None = None


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key that was made elsewhere, for applications that keep the one they have."""

    grant: Grant
    secret: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who may have signed: the secret to try, and the grant, or why there is none. A stranger too has a
    secret to try, so that being refused takes as long for everybody."""

    secret: str
    grant: Grant | ApiError


class KeyRing:
    """Used from one thread. Asks the store at every look whether it has changed, so that a key that was
    revoked is refused from then on, or, where the store is a database, a second later."""

    def __init__(self, store: KeyStore, access_keys: Iterable[AccessKey] = ()) -> None:
        """Raises KeyStoreError where the store cannot be read."""
        self._store = store
        self._access_keys = {each.grant.key_id: each for each in access_keys}
        self._stamp = store.stamp()
        self._keys: dict[str, Key] = {}
        self._grants: dict[str, Grant] = {}
        self._master = MasterSecret.random()
        self._load()

    async def follow(self) -> None:
        """Learn of what other processes do to the store, for as long as this runs."""
        await self._store.follow()

    def empty(self, now: float) -> bool:
        """Whether there is no key that anybody could call with."""
        self._refresh()
        return not self._access_keys and not any(key.state(now) == "active" for key in self._keys.values())

    def signer(self, access_key_id: str, token: str | None, now: float) -> Candidate:
        """Who signs as `access_key_id`, with the session token that came with it. now: seconds since the
        epoch."""
        self._refresh()
        secret = self._master.secret_access_key(access_key_id)
        if known := self._access_keys.get(access_key_id):
            return Candidate(known.secret, known.grant if token is None else errors.unrecognized_client())
        if token is None:
            return Candidate(secret, self._grant(access_key_id, now))
        session = open_session(token, self._master)
        if session is None or not hmac.compare_digest(session.id.encode(), access_key_id.encode()):
            return Candidate(secret, errors.unrecognized_client())
        secret = self._master.session_secret(session.id)
        if session.expires <= now:
            return Candidate(secret, errors.expired_token())
        return Candidate(secret, self._grant(session.key_id, now))

    def bearer(self, token: str, now: float) -> Grant:
        """Whose long-term API key `token` is. Raises AccessDeniedException."""
        self._refresh()
        key = self._keys.get(long_term_key_id(token))
        stored = key.bearer_sha256 if key else fingerprint("")
        matches = hmac.compare_digest(stored, fingerprint(token))
        if key is None or not matches or key.state(now) == "revoked":
            raise errors.invalid_bearer()
        if key.state(now) == "expired":
            raise errors.expired_bearer()
        return self._grants[key.id]

    def _grant(self, key_id: str, now: float) -> Grant | ApiError:
        key = self._keys.get(key_id)
        if key is None or key.state(now) == "revoked":
            return errors.unrecognized_client()
        return self._grants[key_id] if key.state(now) == "active" else errors.expired_token()

    def _refresh(self) -> None:
        stamp = self._store.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load()
        except KeyStoreError as error:
            # Nobody is let in on the strength of a store that cannot be read any more.
            logger.error("no key is accepted until this is mended: %s", error)
            self._keys, self._grants = {}, {}

    def _load(self) -> None:
        keys, master = self._store.read(), self._store.master()
        try:
            grants = {key.id: _grant_of(key) for key in keys.values()}
        except PolicyError as error:
            raise KeyStoreError(f"{self._store.place}: {error}") from None
        self._keys, self._master, self._grants = keys, master, grants


def _grant_of(key: Key) -> Grant:
    policy = ALLOW_ALL if key.policy is None else Policy.parse(key.policy)
    return Grant(key.id, key.name, key.tenant, policy, key.rpm, key.tpm)
