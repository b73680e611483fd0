"""What keys have left of their minutes, where servers share a PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, Float, String, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, mapped_column

from outcrop.ledger.connect import connect
from outcrop.ledger.database import Base, Instant

T = TypeVar("T")

_THREADS = 4


class Allowance(Base):
    """level: what was left of `name`'s minute when it was last asked for, which was `at`; negative where more
    was used. granted: what was given then. PostgreSQL keeps no log of this table: it is written for every
    request, and after a crash of the database everybody's minute begins anew."""

    __tablename__ = "allowance"

    name: Mapped[str] = mapped_column(String(160), primary_key=True)
    level: Mapped[float] = mapped_column(Float)
    granted: Mapped[float] = mapped_column(Float)
    at: Mapped[datetime] = mapped_column(Instant)


class Settled(NamedTuple):
    """granted: of what was asked for. level: what is left."""

    granted: float
    level: float


_QUEUE = """
    LATERAL (
        SELECT coalesce(max(total), 0) AS granted FROM unnest(CAST(:totals AS float8[])) AS total
        WHERE total <= filled
    ) AS queue
"""
_SETTLE = text(f"""
    INSERT INTO allowance AS kept (name, level, granted, at)
    SELECT :name, filled - queue.granted, queue.granted, clock_timestamp()
    FROM (SELECT CAST(:per_minute AS float8) - :charge AS filled) AS bucket, {_QUEUE}
    ON CONFLICT (name) DO UPDATE SET (level, granted, at) = (
        SELECT filled - queue.granted, queue.granted, moment
        FROM (SELECT clock_timestamp() AS moment) AS clock,
        LATERAL (
            SELECT least(
                CAST(:per_minute AS float8),
                kept.level + greatest(0, extract(epoch FROM moment - kept.at)) * :per_minute / 60
            ) - :charge AS filled
        ) AS bucket,
        {_QUEUE}
    )
    RETURNING granted, level
""")
"""One statement, so that two servers that ask at once are served one after the other by the row's lock; the
time is taken when the lock has been. A bucket as `outcrop.api.auth.quota.TokenBucket` is one, filled by the
database's clock."""


class Allowances:
    """Those of one database, reached over connections and threads of their own: what every request waits for
    is not to wait for anything else. Raises DatabaseError for a URL that is none."""

    def __init__(self, state: str) -> None:
        self._engine = connect(state, isolation_level="AUTOCOMMIT")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="quotas")

    async def settle(self, name: str, per_minute: float, charge: float, totals: Sequence[float]) -> Settled:
        """Take from what `name` may use in a minute: `charge` whatever is left, and then as many of a queue
        of takers as that is enough for, first come first served. totals: what the first of them wants, the
        first two, and so on. One round trip. Raises DBAPIError."""
        values = {"name": name, "per_minute": per_minute, "charge": charge, "totals": list(totals)}

        def work(connection: Connection) -> Settled:
            return Settled(*connection.execute(_SETTLE, values).one())

        return await self._run(work)

    async def reach(self) -> None:
        """Raises DBAPIError while the database is away."""
        await self._run(lambda connection: connection.execute(text("SELECT 1")))

    async def _run(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._connected, work)

    def _connected(self, work: Callable[[Connection], T]) -> T:
        """A database that was restarted has broken connections off, which the first use of one shows. What
        was taken by a statement whose answer was lost stays taken: never too much is given."""
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        with self._engine.connect() as connection:
            return work(connection)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()
