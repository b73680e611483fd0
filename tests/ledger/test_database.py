"""The database: what its migrations make is what the tables say, and what is committed is there."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select
from sqlalchemy.orm import Session

from outcrop.ledger.connect import DatabaseError
from outcrop.ledger.database import Database
from outcrop.ledger.lease import Lease
from outcrop.ledger.resource import Tag
from outcrop.ledger.tables import METADATA


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state" / "state.db")
    yield database
    database.close()


def test_migrations_make_the_tables(database: Database) -> None:
    with database.transaction() as session:
        context = MigrationContext.configure(session.connection())
        assert compare_metadata(context, METADATA) == []


def test_writes_ahead_of_its_log(tmp_path: Path, database: Database) -> None:
    database.open()
    connection = sqlite3.connect(tmp_path / "state" / "state.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.transaction() as session:
            session.add(Tag(arn="a", key="", value=""))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.transaction() as session:
        assert session.scalars(select(Tag)).all() == []


def test_times_come_back_in_utc(database: Database) -> None:
    noon = datetime(2026, 5, 1, 14, 0, 0, 123456, timezone(timedelta(hours=2)))
    with database.transaction() as session:
        session.add(Lease(name="a", owner="b", until=noon))
    with database.transaction() as session:
        found = session.get_one(Lease, "a").until
    assert found == noon
    assert found.tzinfo is UTC


def test_the_event_loop_goes_on(database: Database) -> None:
    async def count() -> int:
        """Turns of the loop while a transaction takes its time."""
        turns, done = 0, asyncio.create_task(database.run(_slowly))
        while not done.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(count()) > 100


def _slowly(session: Session) -> None:
    session.connection().exec_driver_sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT max(i) "
        "FROM n"
    ).all()


def _count_up(path: Path, times: int) -> None:
    database = Database(path)
    for _ in range(times):
        with database.transaction() as session:
            counter = session.get(Tag, ("a", "n")) or Tag(arn="a", key="n", value="0")
            counter.value = str(int(counter.value) + 1)
            session.add(counter)
    database.close()


def test_processes_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """They also open it at the same time, when it does not exist yet."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count_up, args=(tmp_path / "state.db", 50)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    database = Database(tmp_path / "state.db")
    with database.transaction() as session:
        assert session.get_one(Tag, ("a", "n")).value == "100"
    database.close()


def _commit_then_die(path: Path) -> None:
    database = Database(path)
    with database.transaction() as session:
        session.add(Tag(arn="a", key="committed", value=""))
    with database.transaction() as session:
        session.add(Tag(arn="a", key="begun", value=""))
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_commit_then_die, args=(tmp_path / "state.db",)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    database = Database(tmp_path / "state.db")
    with database.transaction() as session:
        assert session.scalars(select(Tag.key)).all() == ["committed"]
    database.close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    database = Database(tmp_path / "file" / "state.db")
    with pytest.raises(DatabaseError, match=r"file/state\.db: .*Set `state` to a file"):
        database.open()
    database.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("notes " * 1000)
    database = Database(tmp_path / "state.db")
    with pytest.raises(DatabaseError, match="not a database"):
        database.open()
    database.close()


def test_a_url_is_not_repeated() -> None:
    database = Database("nonesuch://user:secret@host/name")
    with pytest.raises(DatabaseError, match="the database of its URL") as caught:
        database.open()
    assert "secret" not in str(caught.value)
    database.close()


def test_a_temporary_one_goes() -> None:
    database = Database(None)
    path = Path(str(database.open().url.database))
    assert path.exists()
    database.close()
    assert not path.exists()
