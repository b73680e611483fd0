"""PostgreSQL as the database of the state: what holds of SQLite's holds there, over several servers."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_server import PostgresServer
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop.ledger import lease, resources
from outcrop.ledger.connect import AWAY, DatabaseError
from outcrop.ledger.database import Database
from outcrop.ledger.lease import Lease
from outcrop.ledger.resource import Resource, Tag
from outcrop.ledger.tables import METADATA

T = TypeVar("T")
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def servers(url: str) -> Iterator[list[Database]]:
    """Two, each with an engine of its own on the same database."""
    both = [Database(url), Database(url)]
    yield both
    for each in both:
        each.close()


class Meeting:
    """Where servers wait for each other, once each."""

    def __init__(self, both: threading.Barrier) -> None:
        self._both = both
        self._been = False

    def __call__(self) -> None:
        if not self._been:
            self._been = True
            self._both.wait(20)


def at_once(servers: list[Database], work: Callable[[int, Session, Meeting], T]) -> list[T]:
    """The outcome on each server of `work`, which is given the server's number, a session and a meeting."""
    both = threading.Barrier(len(servers))

    def on(number: int) -> T:
        meet = Meeting(both)
        return servers[number].transact(lambda session: work(number, session, meet))

    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(on, range(len(servers))))


def test_migrations_make_the_tables(servers: list[Database]) -> None:
    with servers[0].transaction() as session:
        context = MigrationContext.configure(session.connection())
        assert compare_metadata(context, METADATA) == []
        assert session.execute(
            text("SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'")
        ).scalars().all() == ["allowance"]  # fmt: skip


def test_servers_do_not_overwrite_each_other(servers: list[Database]) -> None:
    """They also open it at the same time, when there is nothing in it yet."""

    def count(session: Session) -> None:
        counter = session.get(Tag, ("a", "n")) or Tag(arn="a", key="n", value="0")
        counter.value = str(int(counter.value) + 1)
        session.add(counter)

    def count_up(server: Database) -> None:
        for _ in range(40):
            server.transact(count)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(count_up, servers))
    with servers[0].transaction() as session:
        assert session.get_one(Tag, ("a", "n")).value == "80"


def test_a_clients_token_makes_one_resource(servers: list[Database]) -> None:
    def work(number: int, session: Session, meet: Meeting) -> str:
        session.scalar(select(Resource).where(Resource.token == "t"))  # from when on it sees no changes
        meet()
        return resources.add(session, made[number]).id

    def resource(identifier: str) -> Resource:
        return Resource(
            kind="k", id=identifier, arn=identifier, name="n", status="s", token="t", created_at=NOON,
            updated_at=NOON, ended_at=None, body={resources.REQUEST: {}},
        )  # fmt: skip

    made = [resource("a"), resource("b")]
    ids = at_once(servers, work)
    assert ids[0] == ids[1]
    with servers[0].transaction() as session:
        assert session.scalars(select(Resource.id)).all() == [ids[0]]


@pytest.mark.parametrize("had_before", [False, True])
def test_a_lease_is_one_servers(servers: list[Database], had_before: bool) -> None:
    term = timedelta(seconds=10)
    if had_before:
        servers[0].transact(lambda session: lease.take(session, "job", "dead", NOON - 2 * term, term))

    def work(number: int, session: Session, meet: Meeting) -> bool:
        session.get(Lease, "job")
        meet()
        return lease.take(session, "job", f"owner {number}", NOON, term)

    taken = at_once(servers, work)
    assert sorted(taken) == [False, True]
    with servers[0].transaction() as session:
        assert session.get_one(Lease, "job").owner == f"owner {taken.index(True)}"
        assert abs(lease.now(session) - datetime.now(UTC)) < timedelta(minutes=1)


def test_times_come_back_in_utc_whatever_the_zone_of_the_database(postgres: PostgresServer, url: str) -> None:
    postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET timezone TO 'Asia/Tokyo'")
    given = datetime(2026, 5, 1, 14, 0, 0, 123456, timezone(timedelta(hours=2)))
    database = Database(url)
    database.transact(lambda session: session.add(Lease(name="a", owner="b", until=given)))
    with database.transaction() as session:
        found = session.get_one(Lease, "a").until
        assert session.scalars(select(Lease.name).where(Lease.until == given)).all() == ["a"]
    assert (found, found.tzinfo) == (given, UTC)
    database.close()


def test_a_database_that_comes_back_is_used_again(postgres: PostgresServer, url: str) -> None:
    database = Database(url)
    database.transact(lambda session: session.add(Tag(arn="a", key="k", value="v")))
    postgres.stop()
    try:
        with pytest.raises(AWAY):
            database.transact(lambda session: session.get(Tag, ("a", "k")))
    finally:
        postgres.start()
    assert database.transact(lambda session: session.get_one(Tag, ("a", "k")).value) == "v"
    database.close()


# -- what is said of one that cannot be used -----------------------------------------------------------


def refusal(url: str) -> str:
    database = Database(url)
    with pytest.raises(DatabaseError) as caught:
        database.open()
    database.close()
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def test_databases_that_cannot_be_used(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    there = postgres.url("nonesuch").replace("outcrop@", "outcrop:s3cret@")
    assert 'database "nonesuch" does not exist. Set `state` to a file' in refusal(there)
    assert "refused" in refusal("postgresql://outcrop:s3cret@127.0.0.1:1/x")
    assert "it has to be SQLite or PostgreSQL, not mysql" in refusal("mysql://outcrop:s3cret@127.0.0.1/x")
    assert "Set `state` to a file" in refusal("postgresql://outcrop:s3cret@host:port/x")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "is not installed. Run pip install 'outcrop[postgres]'" in refusal(there)


def test_a_newer_schema(postgres: PostgresServer, url: str) -> None:
    Database(url).open().dispose()
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", url)
    assert "has version 9999, and this Outcrop knows 0" in refusal(url)
    assert doctor(url)["state"] == "failed"
    assert "Upgrade this server" in doctor(url)["advice"]


def doctor(url: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["doctor", "--json"], env={"OUTCROP_STATE": url})
    (found,) = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "database"]
    assert isinstance(found, dict)
    return found


def test_what_the_doctor_says(url: str) -> None:
    assert "brings its schema to version 0" in doctor(url)["found"]
    database = Database(url)
    database.open()
    assert doctor(url)["found"].startswith("PostgreSQL 1")
    assert "schema" not in doctor(url)["found"]
    database.close()
    away = doctor("postgresql://outcrop:s3cret@127.0.0.1:1/x")
    assert (away["state"], "s3cret" in away["advice"]) == ("failed", False)
    assert "refused" in away["advice"]
