"""How the databases that state can be kept in are reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from outcrop.ledger.location import is_shared, is_url

BUSY_SECONDS = 30
"""How long a transaction waits for one of another process before it fails."""

AWAY = (OperationalError, InterfaceError)
"""What is raised while the database cannot be reached, or cannot do its work: it may yet be mended."""

_REACHING = {
    "application_name": "outcrop",
    "connect_timeout": "5",
    # A host that vanished without a word is noticed within half a minute, by both sides.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "options": (
        f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout={BUSY_SECONDS}s "
        "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    ),
}
"""Parameters of a connection to PostgreSQL that its URL need not give: libpq's, section 34.1.2 of
PostgreSQL's manual."""


class DatabaseError(OSError):
    """The database cannot be opened; the message says which, and what to do."""


def connect(state: str | Path, **options: Any) -> Engine:
    """An engine that has not connected yet. options: of `create_engine`. Raises DatabaseError."""
    try:
        return create_engine(_url(state), **options)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise cannot(state, error) from error


def cannot(state: str | Path, error: Exception) -> DatabaseError:
    """What is said of a database that does not work, with what can be done about it."""
    # URLs hold passwords, and what was given as one may be no URL at all.
    where = "the database of its URL" if is_url(state) else str(state)
    if isinstance(error, ImportError) and is_shared(state):
        reason = "psycopg, PostgreSQL's driver, is not installed. Run pip install 'outcrop[postgres]'"
    else:
        reason = (
            f"{reason_of(error)}. Set `state` to a file that this user may write, or to the URL of a "
            "PostgreSQL database, such as postgresql://user:password@host/name"
        )
    return DatabaseError(f"the server's state cannot be kept in {where}: {reason}")


def reason_of(error: Exception) -> str:
    """What the database, or whatever stands before it, said: one line, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _url(state: str | Path) -> URL:
    if not is_url(state):
        return URL.create("sqlite", database=str(Path(state).expanduser().absolute()))
    url = make_url(str(state))
    match url.get_backend_name():
        case "sqlite":
            return url
        case "postgresql" | "postgres":
            url = url.set(drivername="postgresql+psycopg")
            return url.update_query_dict(
                {name: value for name, value in _REACHING.items() if name not in url.query}
            )
        case other:
            raise ValueError(f"it has to be SQLite or PostgreSQL, not {other}")


def prepare_sqlite(engine: Engine) -> None:
    """The driver is to leave transactions alone, and each is to take the write lock when it begins: one that
    first reads and then writes could otherwise fail because another has written in between."""
    if engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_SECONDS * 1000}", "journal_mode = wal", "synchronous = normal",
            "foreign_keys = on",
        ):  # fmt: skip
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
