"""How many requests and tokens a key may use in a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from outcrop.api import errors

Clock = Callable[[], float]
"""Seconds that never go back, such as `time.monotonic`."""


class Bucket(Protocol):
    """Holds a minute's allowance and fills up evenly. It may be overdrawn: what is then taken must be made
    up for by waiting."""

    @property
    def level(self) -> float:
        """What may be taken now, or more than that; negative while overdrawn."""

    async def acquire(self, amount: float) -> bool:
        """Take `amount` if there is so much."""

    def overdraw(self, amount: float) -> None:
        """Take `amount` whether or not there is so much."""


class TokenBucket:
    """The bucket of one server."""

    def __init__(
        self, per_minute: float, clock: Clock, *, level: float | None = None, since: float | None = None
    ) -> None:
        """level: what it held at the time `since`; None for all of it, and for now."""
        self._capacity = per_minute
        self._level = per_minute if level is None else level
        self._clock = clock
        self._updated = clock() if since is None else since

    @property
    def level(self) -> float:
        """What may be taken now; negative while overdrawn."""
        now = self._clock()
        elapsed = max(0.0, now - self._updated)
        self._level = min(self._capacity, self._level + elapsed * self._capacity / 60)
        self._updated = now
        return self._level

    def take(self, amount: float) -> bool:
        """Take `amount` if there is so much."""
        if self.level < amount:
            return False
        self._level -= amount
        return True

    async def acquire(self, amount: float) -> bool:
        return self.take(amount)

    def overdraw(self, amount: float) -> None:
        """Take `amount` whether or not there is so much."""
        self._level = self.level - amount


MakeBucket = Callable[[str, float, Clock], Bucket]
"""Of what (`requests` or `tokens`), and how much a minute."""


def _of_this_server(what: str, per_minute: float, clock: Clock) -> Bucket:
    return TokenBucket(per_minute, clock)


class Quota:
    """The allowance of one key, shared by its requests. None: without limit."""

    def __init__(
        self, rpm: int | None, tpm: int | None, clock: Clock, make: MakeBucket = _of_this_server
    ) -> None:
        self.limits = (rpm, tpm)
        self._requests = None if rpm is None else make("requests", rpm, clock)
        self._tokens = None if tpm is None else make("tokens", tpm, clock)

    async def admit(self) -> None:
        """Count a request. Raises ThrottlingException where it is one too many, or where answers have used
        up the tokens."""
        if self._tokens is not None and self._tokens.level <= 0:
            raise errors.too_many_tokens()
        if self._requests is not None and not await self._requests.acquire(1):
            raise errors.too_many_requests()

    async def admit_tokens(self, tokens: int) -> None:
        """Count the tokens of a prompt. Raises ThrottlingException where there are too many."""
        if self._tokens is not None and not await self._tokens.acquire(tokens):
            raise errors.too_many_tokens()

    def charge(self, tokens: int) -> None:
        """Count tokens of an answer: one that has begun is not broken off, the next requests wait instead."""
        if self._tokens is not None:
            self._tokens.overdraw(tokens)
