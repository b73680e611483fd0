"""Quotas that hold over all servers on one database."""

from __future__ import annotations

import asyncio
import functools
import logging
from itertools import accumulate

from sqlalchemy.exc import SQLAlchemyError

from outcrop.api.auth.quota import Clock, MakeBucket, TokenBucket
from outcrop.ledger.allowance import Allowances, Settled
from outcrop.ledger.connect import reason_of

logger = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds after which a database that does not answer is taken to be away."""
_PROBE_SECONDS = 1.0

Taker = tuple[float, asyncio.Future[bool]]
"""How much, and whether it was given."""


class DatabaseAway(Exception):
    """The database cannot be asked."""


class SharedQuotas:
    """What the servers on a database let through of a key's requests is together what its quota allows: each
    takes from one row a key has there, with one round trip. Takers that come during a round trip share the
    next, so a server has no more than one statement a key on its way, whatever the load. Nothing is taken in
    advance, for a server could not give it back to another in time: so no quota is exceeded, and none is
    refused that is not used up. A refusal needs no round trip while this server knows that so little was left
    and how fast it fills.

    While the database is away each server goes on by itself, with whole quotas: what was refused would be
    missed more than what was let through. A key may then use its quota once a server. Used on the event
    loop."""

    def __init__(self, allowances: Allowances) -> None:
        self._allowances = allowances
        self._buckets: dict[str, SharedBucket] = {}
        self._probe: asyncio.Task[None] | None = None

    def of(self, key_id: str) -> MakeBucket:
        """What makes the buckets of a key."""
        return functools.partial(self._bucket, key_id)

    def _bucket(self, key_id: str, what: str, per_minute: float, clock: Clock) -> SharedBucket:
        name = f"{key_id}/{what}"
        bucket = self._buckets[name] = SharedBucket(self, name, per_minute, clock)
        return bucket

    @property
    def away(self) -> bool:
        """Whether servers go on by themselves."""
        return self._probe is not None

    async def settle(self, name: str, per_minute: float, charge: float, totals: list[float]) -> Settled:
        """As of `Allowances`. Raises DatabaseAway."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._allowances.settle(name, per_minute, charge, totals)
        except (SQLAlchemyError, TimeoutError) as error:
            if self._probe is None:
                reason = reason_of(error) or "it does not answer"
                logger.error(
                    "quotas are not shared while the database is away, and this server goes on by itself: %s",
                    reason,
                )
                self._probe = asyncio.create_task(self._wait_for_it())
            raise DatabaseAway from error

    async def _wait_for_it(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._allowances.reach()
            except (SQLAlchemyError, TimeoutError):
                continue
            for bucket in self._buckets.values():
                bucket.begin()
            self._probe = None
            logger.warning("the database is back, and quotas are shared again")
            return

    async def close(self) -> None:
        """Write down what answers have used, if it can be, and let go of the database."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await asyncio.gather(*(bucket.settled() for bucket in self._buckets.values()))
        self._allowances.close()


class SharedBucket:
    """One key's requests or tokens, as a server sees them."""

    def __init__(self, shared: SharedQuotas, name: str, per_minute: float, clock: Clock) -> None:
        self._shared = shared
        self._name = name
        self._per_minute = per_minute
        self._clock = clock
        self._takers: list[Taker] = []
        self._owed = 0.0
        self._settling: asyncio.Task[None] | None = None
        self.begin()

    def begin(self) -> None:
        """Know nothing of what the database has."""
        self._bound = TokenBucket(self._per_minute, self._clock)  # what there is at most: others only take
        self._alone: TokenBucket | None = None

    @property
    def level(self) -> float:
        """What may be taken now, or more than that: others may have taken some of it."""
        return self._by_itself.level if self._shared.away else self._bound.level

    async def acquire(self, amount: float) -> bool:
        """Take `amount` if there is so much."""
        if self._shared.away:
            return self._by_itself.take(amount)
        if self.level < amount:
            return False
        given: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._takers.append((amount, given))
        self._settle_soon()
        return await given

    def overdraw(self, amount: float) -> None:
        """Take `amount` whether or not there is so much."""
        if self._shared.away:
            self._by_itself.overdraw(amount)
        elif amount:
            self._owed += amount
            self._settle_soon()

    async def settled(self) -> None:
        """Returns when nothing is on its way."""
        if self._settling is not None:
            await self._settling

    @property
    def _by_itself(self) -> TokenBucket:
        """This server's own bucket, with as much in it as there can have been when the database went away."""
        if self._alone is None:
            self._alone = TokenBucket(self._per_minute, self._clock, level=self._bound.level)
        return self._alone

    def _settle_soon(self) -> None:
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle())

    async def _settle(self) -> None:
        try:
            while self._takers or self._owed:
                takers = [taker for taker in self._takers if not taker[1].done()]  # some may have given up
                owed, self._takers, self._owed = self._owed, [], 0.0
                await self._ask(takers, owed)
        finally:
            self._settling = None

    async def _ask(self, takers: list[Taker], owed: float) -> None:
        totals = list(accumulate(amount for amount, _ in takers))
        asked = self._clock()
        try:
            found = await self._shared.settle(self._name, self._per_minute, owed, totals)
        except DatabaseAway:
            self._by_itself.overdraw(owed)
            for amount, given in takers:
                _tell(given, self._by_itself.take(amount))
            return
        # It has been filling since some moment after the question.
        self._bound = bound = TokenBucket(self._per_minute, self._clock, level=found.level, since=asked)
        served = sum(total <= found.granted for total in totals)
        for _, given in takers[:served]:
            _tell(given, True)
        if served < len(takers):
            _tell(takers[served][1], False)
            # Who comes after one that wanted too much may want less.
            for amount, given in takers[served + 1 :]:
                if amount <= bound.level:
                    self._takers.append((amount, given))
                else:
                    _tell(given, False)


def _tell(given: asyncio.Future[bool], outcome: bool) -> None:
    if not given.done():  # who asked may have given up
        given.set_result(outcome)
