"""The SQL database that holds a server's state: tables, transactions, and the threads that they run on."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import DateTime, Dialect, Engine, MetaData
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from outcrop.ledger import schema
from outcrop.ledger.connect import DatabaseError, cannot, connect, prepare_sqlite
from outcrop.ledger.location import is_shared

T = TypeVar("T")

_ATTEMPTS = 12
_IN_THE_WAY = frozenset(("40001", "40P01", "23505"))
"""PostgreSQL's words for a transaction that another came in the way of: it could not be serialized, each
waited for the other, or both have added what neither had found."""

_THREADS = 4
_SERIAL = {"isolation_level": "SERIALIZABLE", "pool_pre_ping": True}


class Base(DeclarativeBase):
    """All tables. Constraints have names, since migrations have to call them by something."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Instant(TypeDecorator[datetime]):
    """An aware datetime, in UTC whatever the database makes of time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc  # SQLite has no time zones

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """One engine on one database.

    `state` is the path of an SQLite file, made with its folder where there is none, or a URL of SQLAlchemy's,
    of SQLite or PostgreSQL; None is a file that goes when the database is closed. SQLite runs in WAL mode, so
    that readers in other processes do not wait for the server. What has been committed survives the end of
    the process however it ends; after a failure of the whole machine the last moments of an SQLite file may
    be missing, and nothing else.

    Transactions are as if one came after the other, whichever servers they are of: SQLite has one writer at a
    time, and PostgreSQL is told to serialize, and does again what that refuses.

    The event loop uses `run`, which works on the database's own threads: one for SQLite, and several for
    PostgreSQL, some of them for what an answer waits for. Commands and tests use `transaction`.
    """

    def __init__(self, state: str | Path | None) -> None:
        self._state = state
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS if self.shared else 1, thread_name_prefix="database")
        # Jobs queue for their transactions by the dozen, and the end of an answer is not to wait for them.
        self._urgent = ThreadPoolExecutor(1, thread_name_prefix="ledger") if self.shared else self._threads
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def shared(self) -> bool:
        """Whether servers on other hosts may use it, too."""
        return is_shared(self._state)

    def open(self) -> Engine:
        """Make the database and bring its schema up to date, where that has not been done. Raises
        DatabaseError."""
        with self._opening:
            if self._engine is None:
                self._engine = self._opened()
            return self._engine

    def _opened(self) -> Engine:
        state = self._state
        if state is None:
            self._folder = tempfile.TemporaryDirectory(prefix="outcrop-state-")
            state = Path(self._folder.name) / "state.db"
        engine = connect(state, **(_SERIAL if self.shared else {}))
        try:
            if engine.dialect.name == "sqlite":
                prepare_sqlite(engine)
            schema.upgrade(engine)
        except DatabaseError:
            engine.dispose()
            raise
        except (SQLAlchemyError, OSError) as error:
            engine.dispose()
            raise cannot(state, error) from error
        return engine

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose changes are committed at the end, all or, if something is raised, none. Blocks.
        Raises DBAPIError, also where another transaction came in its way, which `transact` sees to."""
        with Session(self.open(), expire_on_commit=False) as session, session.begin():
            yield session

    def transact(self, work: Callable[[Session], T]) -> T:
        """The result of `work` in a transaction. It must be finished when `work` returns: a list, not an
        iterator over rows. It is called again where another transaction came in the way, so it must change
        nothing but what is in the session. Blocks."""
        for attempt in range(_ATTEMPTS - 1):
            try:
                with self.transaction() as session:
                    return work(session)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
                    raise
                time.sleep(random.uniform(0, 0.002 * 2**attempt))
        with self.transaction() as session:
            return work(session)

    async def run(self, work: Callable[[Session], T], *, urgent: bool = False) -> T:
        """As `transact`, on a thread of the database. urgent: an answer waits for it."""
        threads = self._urgent if urgent else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, self.transact, work)

    def close(self) -> None:
        """Wait for what is in progress, and let go of the database. Idempotent."""
        self._threads.shutdown()
        self._urgent.shutdown()
        if self._engine is not None:
            self._engine.dispose()
        if self._folder is not None:
            self._folder.cleanup()
