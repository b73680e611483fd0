"""The file of keys, and `outcrop keys` which writes it."""

from __future__ import annotations

import json
import os
import shlex
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from outcrop.api.auth.keyring import KeyRing
from outcrop.api.auth.keys import KeyStore, KeyStoreError
from outcrop.api.auth.master import MasterSecret, MasterSecretError
from outcrop.cli.main import app

from .world import World

DENY = {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}

# -- the store ---------------------------------------------------------------------------------------


def test_no_secret_is_stored(store: KeyStore) -> None:
    key, bearer = store.create(1000, name="me", rpm=3)
    secret = store.master().secret_access_key(key.id)
    text = store.path.read_text()
    assert key.id in text
    for hidden in (secret, bearer, bearer.removeprefix("ABSK")):
        assert hidden not in text
    assert len(secret) == 40
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert (modes["keys.json"], modes["master.key"]) == (0o600, 0o600)
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert set(modes) == {"keys.json", "keys.lock", "master.key"}


def test_what_was_written_is_read(store: KeyStore) -> None:
    assert store.read() == {}
    fields: dict[str, Any] = {"name": "n", "tenant": "t", "rpm": 1, "tpm": 2, "expires": 9}
    key, _ = store.create(5, policy=DENY, **fields)
    other, _ = store.create(6)
    assert KeyStore(store.path).read() == {key.id: key, other.id: other}
    assert [store.read()[key.id].state(now) for now in (8, 9)] == ["active", "expired"]
    assert store.revoke("n", 7).revoked == 7
    assert store.revoke(key.id, 8).revoked == 7
    assert store.read()[key.id].state(8) == "revoked"


def test_keys_that_cannot_be_found(store: KeyStore) -> None:
    store.create(1, name="twin")
    store.create(1, name="twin")
    with pytest.raises(KeyStoreError, match="twin: several keys have this name; give the id"):
        store.revoke("twin", 2)
    with pytest.raises(KeyStoreError, match="nobody: there is no such key"):
        store.revoke("nobody", 2)


def test_writers_do_not_lose_each_others_keys(store: KeyStore) -> None:
    threads = [threading.Thread(target=KeyStore(store.path).create, args=(1,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read()) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "truncated"),
        (b"[]", "Expected"),
        (b'{"version": 2, "keys": []}', "version 2"),
        (b"\xff", "malformed"),
    ],
)
def test_files_that_are_broken(store: KeyStore, content: bytes, message: str) -> None:
    store.create(1)
    store.path.write_bytes(content)
    with pytest.raises(KeyStoreError, match=message):
        store.read()
    with pytest.raises(KeyStoreError):
        KeyRing(store)
    with pytest.raises(KeyStoreError):
        store.create(2)
    assert store.path.read_bytes() == content


def test_a_policy_that_was_broken_by_hand(store: KeyStore) -> None:
    store.create(1, policy=DENY)
    store.path.write_text(store.path.read_text().replace("Deny", "Denied"))
    with pytest.raises(KeyStoreError, match=r"Statement\[0\].Effect: 'Denied'"):
        KeyRing(store)


def test_a_key_that_was_never_written_is_no_key(store: KeyStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyStoreError, match=r"Not a directory|File exists"):
        KeyStore(tmp_path / "file" / "keys.json").create(1)


# -- the master secret -------------------------------------------------------------------------------


def test_secrets_are_of_the_master_and_the_key(store: KeyStore, tmp_path: Path) -> None:
    key, _ = store.create(1)
    mine = store.master()
    assert mine.secret_access_key(key.id) == store.master().secret_access_key(key.id)
    other = MasterSecret.load_or_create(tmp_path / "other")
    made = {m.secret_access_key(name) for m in (mine, other) for name in (key.id, "x")}
    made |= {m.session_secret(name) for m in (mine, other) for name in (key.id, "x")}
    assert len(made) == 8


def test_a_master_secret_from_the_environment(store: KeyStore) -> None:
    given = KeyStore(store.path, "m" * 32)
    key, _ = given.create(1)
    assert not store.path.with_name("master.key").exists()
    again = KeyStore(store.path, "m" * 32).master()
    assert given.master().secret_access_key(key.id) == again.secret_access_key(key.id)
    with pytest.raises(KeyStoreError, match="at least 32 characters"):
        KeyStore(store.path, "short").master()


def test_master_secrets_that_will_not_do(store: KeyStore) -> None:
    store.create(1)
    path = store.path.with_name("master.key")
    path.chmod(0o640)
    with pytest.raises(KeyStoreError, match="others may read this file; run chmod 600"):
        store.master()
    path.chmod(0o600)
    for content in (b"", b"short\n", b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(MasterSecretError, match=r"master\.key"):
            MasterSecret.load(path)
    path.unlink()
    assert store.master().secret_access_key("x") != store.master().secret_access_key("x")


def test_a_change_is_seen_whatever_the_clock_says(world: World) -> None:
    _, _, bearer = world.key(name="a")
    world.bearer(bearer)
    before = world.store.path.stat()
    world.store.revoke("a", 0)
    os.utime(world.store.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Exception, match="API Key is valid"):
        world.bearer(bearer)


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `outcrop keys …`; what it printed. Its exit status must be 0."""
    for name in list(os.environ):
        if name.startswith("OUTCROP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, ["keys", *arguments])
        assert done.exit_code == status, done.output
        return done.output

    return run


def exported(output: str) -> dict[str, str]:
    words = [shlex.split(line) for line in output.splitlines()]
    assert all(word[0] == "export" and len(word) == 2 for word in words)
    return dict(word[1].split("=", 1) for word in words)


def test_create(keys: Any, tmp_path: Path) -> None:
    made = exported(
        keys("create", "--name", "me", "--tenant", "t", "--rpm", "5", "--tpm", "9", "--expires", "30d")
    )
    assert list(made) == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_BEARER_TOKEN_BEDROCK"]
    store = KeyStore(tmp_path / "outcrop" / "keys.json")
    (key,) = store.read().values()
    assert (key.id, key.name, key.tenant, key.rpm, key.tpm) == (made["AWS_ACCESS_KEY_ID"], "me", "t", 5, 9)
    assert key.expires == key.created + 30 * 86_400
    assert store.master().secret_access_key(key.id) == made["AWS_SECRET_ACCESS_KEY"]
    assert KeyRing(store).bearer(made["AWS_BEARER_TOKEN_BEDROCK"], key.created).name == "me"
    assert set(json.loads(keys("create", "--json"))) == set(made)


def test_create_with_a_policy(keys: Any, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    document = {"Statement": [{"Effect": "Allow", "Action": "bedrock:*", "Resource": "*"}]}
    policy.write_text(json.dumps(document))
    keys("create", "--policy", str(policy))
    keys("create", "--models", "meta.*", "--models", "x.y", "--expires", "2999-01-31")
    first, second = KeyStore(tmp_path / "outcrop" / "keys.json").read().values()
    assert first.policy == document
    assert second.policy is not None
    assert second.policy["Statement"][0]["Resource"] == [
        "arn:aws:bedrock:*::foundation-model/meta.*",
        "arn:aws:bedrock:*::foundation-model/x.y",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["create", "--expires", "soon"],
            "--expires: 'soon' is neither a time such as 12h or 30d nor a date",
        ),
        (["create", "--expires", "2001-01-01"], "--expires: 2001-01-01 is over"),
        (["create", "--name", "a b"], "--name: 'a b' may have 64 letters, digits and +=,.@_-"),
        (["create", "--policy", "missing.json"], "missing.json: No such file or directory"),
        (["create", "--policy", "x", "--models", "y"], "a key has a policy or a list of models, not both"),
        (["revoke", "nobody"], "nobody: there is no such key"),
        (["session", "nobody"], "nobody: there is no such key"),
        (["list", "--config", "missing.toml"], "configuration file missing.toml: there is no such file"),
    ],
)
def test_mistakes_are_told_in_a_line(keys: Any, arguments: list[str], said: str) -> None:
    assert keys(*arguments, status=2) == f"outcrop: {said}\n"


def test_list_and_revoke(keys: Any) -> None:
    assert keys("list") == "there are no keys; make one with: outcrop keys create\n"
    made = exported(keys("create", "--name", "me"))
    secrets = list(made.values())[1:]
    shown = keys("list")
    header, line = shown.splitlines()
    assert header.split() == ["id", "name", "tenant", "state", "created", "expires", "rpm", "tpm", "policy"]
    assert line.split()[:4] == [made["AWS_ACCESS_KEY_ID"], "me", made["AWS_ACCESS_KEY_ID"], "active"]
    assert not any(secret in shown for secret in secrets)
    assert keys("revoke", "me") == f"revoked {made['AWS_ACCESS_KEY_ID']}\n"
    (row,) = json.loads(keys("list", "--json"))
    assert (row["state"], row["policy"], row["rpm"]) == ("revoked", "everything", None)
    assert keys("session", made["AWS_ACCESS_KEY_ID"], status=2).endswith("this key is revoked\n")


def test_session(keys: Any, tmp_path: Path) -> None:
    keys("create", "--name", "me")
    made = exported(keys("session", "me", "--hours", "2"))
    assert list(made) == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    store = KeyStore(tmp_path / "outcrop" / "keys.json")
    (key,) = store.read().values()
    ring = KeyRing(store)
    for now, works in [(key.created, True), (key.created + 7199, True), (key.created + 7202, False)]:
        candidate = ring.signer(made["AWS_ACCESS_KEY_ID"], made["AWS_SESSION_TOKEN"], now)
        assert candidate.secret == made["AWS_SECRET_ACCESS_KEY"]
        assert (getattr(candidate.grant, "key_id", None) == key.id) is works
