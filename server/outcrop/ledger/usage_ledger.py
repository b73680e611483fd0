"""Writes usage, off the event loop and many rows at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from outcrop.ledger.connect import reason_of
from outcrop.ledger.database import Database
from outcrop.ledger.usage import Usage

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_MOST_WAITING = 100_000
"""Rows that are kept for a database that cannot be written: an hour of 28 generations a second."""


class UsageRow(msgspec.Struct, frozen=True):
    """What is written: the columns of `Usage`."""

    request_id: str
    at: datetime
    tenant: str
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    latency_ms: float
    first_token_ms: float | None
    outcome: str


class UsageLedger:
    """When a row is there to stay.

    A row is committed *before* the last frame of its answer is handed to the connection: whoever has read the
    usage of an answer finds it in the ledger, whatever is killed afterwards. The other way about, the ledger
    may hold a row whose answer did not reach its client: its API process was killed between the commit and
    the last byte, or the client was gone. The work was done, so it is counted, once: a request id has one
    row. Generations that a killed API process had not ended have no row, and nobody has seen their usage. A
    killed engine changes nothing: the row is written by the API process when the answer, continued by the
    next engine, ends.

    Group commit: while one commit is in progress, further rows gather for the next; so a commit takes as many
    rows as have come meanwhile, and an answer waits for two commits at most. Generations that failed or were
    given up are written without anybody waiting.

    A database that cannot be written does not hold answers up: rows wait in memory and are tried again, up to
    a limit. Used on the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: list[UsageRow] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._failing = False
        self._closing = asyncio.Event()
        self.lost = 0  # rows that were dropped, which is never except when the database cannot be written

    @property
    def backlog(self) -> int:
        """Rows that wait to be written."""
        return len(self._rows)

    async def record(self, row: UsageRow) -> None:
        """Returns when the row is committed, or cannot be for now."""
        self.note(row)
        if not self._failing:
            durable = asyncio.get_running_loop().create_future()
            self._waiting.append(durable)
            await durable

    def note(self, row: UsageRow) -> None:
        """Write the row soon."""
        if len(self._rows) >= _MOST_WAITING:
            self.lost += 1
            return
        self._rows.append(row)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Write what is left, if it can be."""
        self._closing.set()
        if self._writer is not None:
            await self._writer
        if missing := len(self._rows) + self.lost:
            logger.error("usage of %d generations was not written", missing)

    async def _write(self) -> None:
        while self._rows:
            rows, self._rows = self._rows, []
            waiting, self._waiting = self._waiting, []
            self._failing = not await self._commit(rows)
            if self._failing:
                waiting, self._waiting = [*waiting, *self._waiting], []
                self._rows = [*rows, *self._rows]
            for durable in waiting:
                if not durable.done():  # its answer may have been given up
                    durable.set_result(None)
            if self._failing:
                if self._closing.is_set():
                    break
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _RETRY_SECONDS)
        self._writer = None

    async def _commit(self, rows: Sequence[UsageRow]) -> bool:
        values = [msgspec.structs.asdict(row) for row in rows]

        def write(session: Session) -> None:
            session.execute(_insert_new(session), values)

        try:
            await self._database.run(write, urgent=True)
        except (SQLAlchemyError, OSError) as error:
            logger.error("usage of %d generations cannot be written yet: %s", len(rows), reason_of(error))
            return False
        return True


def _insert_new(session: Session) -> Insert:
    """An insertion that leaves out rows that are there: a record of a batch job may be answered again
    after a crash, under its old id, and one such row must not keep all others from being written."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(Usage).on_conflict_do_nothing()
    return postgresql.insert(Usage).on_conflict_do_nothing()
