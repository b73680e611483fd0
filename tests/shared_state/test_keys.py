"""Keys in the database that servers share."""

from __future__ import annotations

import asyncio
import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from outcrop.api.auth.keyring import KeyRing
from outcrop.api.auth.keys import KeyStore, KeyStoreError
from outcrop.api.auth.shared_keys import SharedKeyStore
from outcrop.api.errors import ApiError
from outcrop.cli.main import app
from outcrop.key_store import key_store
from outcrop.ledger.api_key import ApiKey
from outcrop.ledger.database import Database
from outcrop.settings import AuthSettings

SECRET = "m" * 32


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def store(database: Database, tmp_path: Path, master: str | None = SECRET) -> SharedKeyStore:
    return SharedKeyStore(database, tmp_path / "keys.json", master)


def test_what_was_written_is_read_without_its_secrets(
    database: Database, tmp_path: Path, postgres: PostgresServer, url: str
) -> None:
    keys = store(database, tmp_path)
    assert keys.read() == {}
    policy = {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
    key, bearer = keys.create(5, name="n", tenant="t", rpm=1, tpm=2, expires=9, policy=policy)
    other, _ = keys.create(6)
    assert store(database, tmp_path).read() == {key.id: key, other.id: other}
    assert keys.revoke("n", 7).revoked == 7
    assert store(database, tmp_path).read()[key.id].state(8) == "revoked"
    with pytest.raises(KeyStoreError, match="nobody: there is no such key"):
        keys.revoke("nobody", 7)
    with pytest.raises(KeyStoreError, match="256 characters"):
        keys.create(8, tenant="t" * 257)
    assert not list(tmp_path.iterdir())  # the environment had the master secret
    with database.transaction() as session:
        text = str(session.connection().exec_driver_sql("SELECT * FROM api_key").all())
    for hidden in (SECRET, bearer, keys.master().secret_access_key(key.id)):
        assert hidden not in text


def test_writers_do_not_lose_each_others_keys(database: Database, tmp_path: Path) -> None:
    threads = [threading.Thread(target=store(database, tmp_path).create, args=(1,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store(database, tmp_path).read()) == 6


def test_a_server_hears_of_new_and_revoked_keys(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outcrop.ledger.watch.LOOK_SECONDS", 0.02)
    elsewhere = store(database, tmp_path)

    async def until(ring: KeyRing, bearer: str, name: str | None) -> None:
        """Until the token is one of the name, or refused."""
        while True:
            try:
                found = ring.bearer(bearer, 2).name
            except ApiError:
                found = None
            if found == name:
                return
            await asyncio.sleep(0.01)

    async def scenario() -> None:
        ring = KeyRing(store(database, tmp_path))
        assert ring.empty(2)
        following = asyncio.create_task(ring.follow())
        for name in ("first", "second"):
            key, bearer = await asyncio.to_thread(elsewhere.create, 1, name=name)
            await asyncio.wait_for(until(ring, bearer, name), 20)
            await asyncio.to_thread(elsewhere.revoke, key.id, 2)
            await asyncio.wait_for(until(ring, bearer, None), 20)
        following.cancel()

    asyncio.run(scenario())


def test_keys_are_kept_while_the_database_is_away(
    database: Database,
    tmp_path: Path,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("outcrop.ledger.watch.LOOK_SECONDS", 0.02)
    _, bearer = store(database, tmp_path).create(1, name="a")

    async def scenario() -> None:
        ring = KeyRing(store(database, tmp_path))
        following = asyncio.create_task(ring.follow())
        await asyncio.sleep(0.1)
        postgres.stop()
        try:
            while "while the database is away" not in caplog.text:
                await asyncio.sleep(0.02)
            assert ring.bearer(bearer, 2).name == "a"
        finally:
            postgres.start()
        key, later = await asyncio.to_thread(store(database, tmp_path).create, 1, name="b")
        while key.id not in ring._keys:
            await asyncio.sleep(0.02)
            ring.empty(2)
        assert ring.bearer(later, 2).name == "b"
        following.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert caplog.text.count("while the database is away") == 1


@pytest.mark.parametrize("broken", ["master secret", "document"])
def test_nobody_is_let_in_by_keys_that_cannot_be_used(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr("outcrop.ledger.watch.LOOK_SECONDS", 0.02)
    elsewhere = store(database, tmp_path, None)
    key, bearer = elsewhere.create(1, name="a")

    def spoil(session: Session) -> None:
        row = session.get_one(ApiKey, key.id)
        row.revision += 1
        if broken == "document":
            row.document = {"id": key.id}

    async def scenario() -> None:
        ring = KeyRing(store(database, tmp_path, None))
        following = asyncio.create_task(ring.follow())
        assert ring.bearer(bearer, 2).name == "a"
        if broken == "master secret":
            elsewhere.master_path.chmod(0o644)  # others may read it
        await database.run(spoil)
        while not ring.empty(2):
            await asyncio.sleep(0.02)
        with pytest.raises(ApiError):
            ring.bearer(bearer, 2)
        following.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_every_host_needs_the_same_master_secret(database: Database, tmp_path: Path) -> None:
    store(database, tmp_path).create(1)
    message = "made with another master secret than this host has: give every host the same, in OUTCROP_"
    for other in ("n" * 32, None):
        with pytest.raises(KeyStoreError, match=message):
            KeyRing(store(database, tmp_path, other))
        with pytest.raises(KeyStoreError, match=message):
            store(database, tmp_path, other).create(1)


def test_where_the_settings_have_keys(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "k.json"
    assert isinstance(key_store(AuthSettings(), database), SharedKeyStore)
    for named, state in ((AuthSettings(keys=file), database), (AuthSettings(), Database(None))):
        assert type(key_store(named, state)) is KeyStore
    assert key_store(AuthSettings(keys=file), database).path == file


def test_the_command(url: str, tmp_path: Path) -> None:
    def keys(*arguments: str) -> Any:
        variables = {"OUTCROP_STATE": url, "XDG_STATE_HOME": str(tmp_path)}
        done = CliRunner().invoke(app, ["keys", *arguments], env=variables)
        assert done.exit_code == 0, done.output
        return done.output

    made = dict(shlex.split(line)[1].split("=", 1) for line in keys("create", "--name", "a").splitlines())
    assert [path.name for path in (tmp_path / "outcrop").iterdir()] == ["master.key"]
    keys("revoke", "a")
    (row,) = json.loads(keys("list", "--json"))
    assert (row["id"], row["state"]) == (made["AWS_ACCESS_KEY_ID"], "revoked")
    away = {"OUTCROP_STATE": "postgresql://outcrop:s3cret@127.0.0.1:1/x"}
    done = CliRunner().invoke(app, ["keys", "list"], env=away)
    assert (done.exit_code, "refused" in done.output, "s3cret" in done.output) == (2, True, False)
