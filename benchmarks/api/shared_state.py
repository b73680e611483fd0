"""What it costs a call that servers share a PostgreSQL database.

    python benchmarks/api/shared_state.py postgresql://user:password@host/empty_database

Quotas: milliseconds until a request is admitted, one after the other and 64 at a time, on one key of two
servers.
Ledger: milliseconds until a generation's usage is committed, while a batch job writes 16 records at a time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from sqlalchemy.orm import Session

from outcrop.api.auth.authenticator import utc_now
from outcrop.api.auth.quota import TokenBucket
from outcrop.api.auth.shared_quota import SharedQuotas
from outcrop.ledger.allowance import Allowances
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Tag
from outcrop.ledger.usage_ledger import UsageLedger, UsageRow
from outcrop.percentile import percentile

PLENTY = 10**12
SIDE_BY_SIDE = 64


async def timed(count: int, at_once: int, call: Callable[[int], Awaitable[object]]) -> list[float]:
    """Milliseconds of each call, so many of which are always in progress."""
    numbers, found = iter(range(count)), []

    async def work() -> None:
        for number in numbers:
            begun = time.perf_counter()
            await call(number)
            found.append(1000 * (time.perf_counter() - begun))

    await asyncio.gather(*(work() for _ in range(at_once)))
    return found


def show(what: str, found: list[float], seconds: float) -> None:
    p50, p99 = percentile(found, 0.5), percentile(found, 0.99)
    print(f"{what:62} {p50:8.3f} {p99:8.3f} {len(found) / seconds:9.0f}", flush=True)


async def measure(what: str, count: int, at_once: int, call: Callable[[int], Awaitable[object]]) -> None:
    begun = time.perf_counter()
    found = await timed(count, at_once, call)
    show(what, found, time.perf_counter() - begun)


async def quotas(url: str) -> None:
    local = TokenBucket(PLENTY, time.monotonic)
    await measure("quota in the process", 20_000, 1, lambda _: local.acquire(1))
    servers = [SharedQuotas(Allowances(url)) for _ in range(2)]
    buckets = [server.of("key")("requests", PLENTY, time.monotonic) for server in servers]
    await measure("shared quota, one call at a time", 2_000, 1, lambda _: buckets[0].acquire(1))
    await measure(
        f"shared quota, {SIDE_BY_SIDE} calls at a time on two servers", 20_000, SIDE_BY_SIDE,
        lambda number: buckets[number % 2].acquire(1),
    )  # fmt: skip
    empty = servers[0].of("empty")("requests", 1, time.monotonic)
    await empty.acquire(1)
    await measure("shared quota, refused", 20_000, 1, lambda _: empty.acquire(1))
    for server in servers:
        await server.close()


async def ledger(url: str) -> None:
    database = Database(url)

    def row(number: int) -> UsageRow:
        return UsageRow(f"{time.time_ns()}-{number}", utc_now(), "t", "m", 10, 0, 10, 1.0, 1.0, "stop")

    async def record(number: int) -> None:
        await usage.record(row(number))

    def write(session: Session) -> None:
        session.merge(Tag(arn=f"record-{time.time_ns()}", key="k", value="v"))

    async def write_on() -> None:
        while True:
            await database.run(write)

    usage = UsageLedger(database)
    await measure("usage, one answer at a time", 500, 1, record)
    await measure(f"usage, {SIDE_BY_SIDE} answers at a time", 5_000, SIDE_BY_SIDE, record)
    job = [asyncio.create_task(write_on()) for _ in range(16)]
    await measure("usage, one answer at a time, beside a batch job", 300, 1, record)
    database._urgent, lane = database._threads, database._urgent
    await measure("the same, waiting in the job's queue", 300, 1, record)
    database._urgent = lane
    for task in job:
        task.cancel()
    await asyncio.gather(*job, return_exceptions=True)
    await usage.close()
    database.close()


async def main(url: str) -> None:
    database = Database(url)
    database.open()
    database.close()
    print(f"{'':62} {'p50 ms':>8} {'p99 ms':>8} {'calls/s':>9}")
    await quotas(url)
    await ledger(url)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
