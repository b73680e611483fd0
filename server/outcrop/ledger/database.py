"""The SQL database that holds a server's state: where it is, how it is reached, and its schema's versions."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import DateTime, Dialect, Engine, MetaData, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

T = TypeVar("T")

_BUSY_SECONDS = 30
"""How long a transaction waits for one of another process before it fails."""


class DatabaseError(OSError):
    """The database cannot be opened; the message says which, and what to do."""


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
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Database:
    """One engine on one database.

    `state` is the path of an SQLite file, made with its folder where there is none, or an SQLAlchemy URL;
    None is a file that goes when the database is closed. SQLite runs in WAL mode, so that readers in other
    processes do not wait for the server. What has been committed survives the end of the process however it
    ends; after a failure of the whole machine the last moments may be missing, and nothing else.

    The event loop uses `run`, which works on the database's own thread: one, since SQLite has one writer at a
    time anyway. Commands and tests use `transaction`.
    """

    def __init__(self, state: str | Path | None) -> None:
        self._state = state
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._folder: tempfile.TemporaryDirectory[str] | None = None

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
        try:
            return _connect(state)
        except (SQLAlchemyError, OSError, ImportError) as error:
            # URLs hold passwords, and what was given as one may be no URL at all.
            where = "the database of its URL" if "://" in str(state) else state
            raise DatabaseError(
                f"the server's state cannot be kept in {where}: {getattr(error, 'orig', None) or error}. "
                "Set `state` to a file that this user may write, or to the URL of a database"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose changes are committed at the end, all or, if something is raised, none. Blocks."""
        with Session(self.open(), expire_on_commit=False) as session, session.begin():
            yield session

    async def run(self, work: Callable[[Session], T]) -> T:
        """The result of `work` in a transaction, on the database's thread. It must be finished when `work`
        returns: a list, not an iterator over rows."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)

    def _transact(self, work: Callable[[Session], T]) -> T:
        with self.transaction() as session:
            return work(session)

    def close(self) -> None:
        """Wait for what is in progress, and let go of the database. Idempotent."""
        self._thread.shutdown()
        if self._engine is not None:
            self._engine.dispose()
        if self._folder is not None:
            self._folder.cleanup()


def _connect(state: str | Path) -> Engine:
    """Raises SQLAlchemyError, OSError, and ImportError for a database whose driver is not installed."""
    is_url = "://" in str(state)
    engine = create_engine(str(state) if is_url else f"sqlite:///{Path(state).expanduser().absolute()}")
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    _migrate(engine)
    return engine


def _prepare_sqlite(engine: Engine) -> None:
    """The driver is to leave transactions alone, and each is to take the write lock when it begins: one that
    first reads and then writes could otherwise fail because another has written in between."""
    if engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {_BUSY_SECONDS * 1000}", "journal_mode = wal", "synchronous = normal",
            "foreign_keys = on",
        ):  # fmt: skip
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(engine: Engine) -> None:
    """Run the migrations that the database has not seen, in one transaction."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # that all is as it was is no news
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "outcrop.ledger:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
