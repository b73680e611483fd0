"""A quota of N is N in total, over servers on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from postgres_server import PostgresServer

from outcrop.api.auth.quota import Bucket
from outcrop.api.auth.shared_quota import SharedQuotas
from outcrop.ledger.allowance import Allowances
from outcrop.ledger.database import Database

pytestmark = pytest.mark.usefixtures("schema")


@pytest.fixture
def schema(url: str) -> None:
    database = Database(url)
    database.open()
    database.close()


@asynccontextmanager
async def server(url: str) -> AsyncIterator[SharedQuotas]:
    shared = SharedQuotas(Allowances(url))
    try:
        yield shared
    finally:
        await shared.close()


@asynccontextmanager
async def buckets(url: str, per_minute: float, servers: int = 2) -> AsyncIterator[list[Bucket]]:
    """A key's bucket on each of several servers."""
    async with AsyncExitStack() as stack:
        shared = [await stack.enter_async_context(server(url)) for _ in range(servers)]
        yield [each.of("key")("requests", per_minute, time.monotonic) for each in shared]


def at(postgres: PostgresServer, url: str, seconds: float) -> None:
    """Let the database think that so much time has passed."""
    postgres.execute(f"UPDATE allowance SET at = at - interval '{seconds} s'", url)


def test_n_in_total(url: str) -> None:
    n = 37

    async def scenario() -> None:
        async with buckets(url, n) as both:
            begun = time.monotonic()
            given = await asyncio.gather(*(each.acquire(1) for _ in range(40) for each in both))
            filled = (time.monotonic() - begun) * n / 60
            assert n <= sum(given) <= n + filled
            assert not any(await asyncio.gather(*(each.acquire(n / 2) for each in both)))

    asyncio.run(scenario())


def test_first_come_first_served_and_who_wants_less_than_is_left_gets_it(url: str) -> None:
    async def scenario() -> None:
        async with buckets(url, 100, 1) as (bucket,):
            assert await bucket.acquire(40)
            assert await asyncio.gather(*map(bucket.acquire, (30, 31, 20, 50, 9))) == [
                True, False, True, False, True
            ]  # fmt: skip
            assert bucket.level == pytest.approx(1, abs=5)

    asyncio.run(scenario())


def test_what_answers_use_is_made_up_for_on_every_server(url: str, postgres: PostgresServer) -> None:
    async def scenario() -> None:
        async with buckets(url, 6) as (mine, other):
            assert await mine.acquire(6)
            mine.overdraw(3)
            while mine.level > -2:
                await asyncio.sleep(0.01)
            assert not await other.acquire(1)
            assert other.level < 0
            at(postgres, url, 30)
        async with buckets(url, 6) as (mine, other):  # which do not know how little there was
            assert not await mine.acquire(1.5)
            at(postgres, url, 15)
            assert await other.acquire(1)
            at(postgres, url, 3600)  # no more than a minute's worth is saved up
        async with buckets(url, 6) as (mine, other):
            assert await mine.acquire(6)
            assert not await other.acquire(4)

    asyncio.run(scenario())


def test_a_refusal_needs_no_round_trip(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    settle = Allowances.settle

    async def counted(self: Allowances, *given: object) -> object:
        asked.append(given)
        return await settle(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Allowances, "settle", counted)

    async def scenario() -> None:
        async with buckets(url, 3, 1) as (bucket,):
            assert await asyncio.gather(*(bucket.acquire(1) for _ in range(3))) == [True] * 3
            assert len(asked) == 1  # they came together
            assert await asyncio.gather(*(bucket.acquire(1) for _ in range(100))) == [False] * 100
            assert len(asked) <= 1

    asyncio.run(scenario())


def test_who_gives_up_waiting_harms_nobody(url: str) -> None:
    async def scenario() -> None:
        async with buckets(url, 10, 1) as (bucket,):
            gone = asyncio.create_task(bucket.acquire(1))
            others = [asyncio.create_task(bucket.acquire(1)) for _ in range(3)]
            await asyncio.sleep(0)
            gone.cancel()
            assert await asyncio.gather(*others) == [True] * 3

    asyncio.run(scenario())


def test_while_the_database_is_away_servers_go_on_by_themselves(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("outcrop.api.auth.shared_quota._PROBE_SECONDS", 0.05)

    async def scenario() -> None:
        async with server(url) as mine, server(url) as others:
            first, second = (each.of("key")("requests", 10, time.monotonic) for each in (mine, others))
            assert await first.acquire(4)
            postgres.stop()
            try:
                # What it knew to be taken is.
                assert [await first.acquire(2) for _ in range(4)] == [True, True, True, False]
                assert mine.away
                first.overdraw(1)
                assert first.level < 0
                assert [await second.acquire(10), await second.acquire(10)] == [True, False]
            finally:
                postgres.start()
            while mine.away or others.away:
                await asyncio.sleep(0.02)
            # PostgreSQL was killed, so the table that it keeps no log of is empty.
            assert await first.acquire(7)
            assert not await second.acquire(7)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records if "quotas are" in record.getMessage()]
    assert len(said) == 4
    assert sum("goes on by itself" in each and "refused" in each for each in said) == 2
    assert sum("shared again" in each for each in said) == 2
