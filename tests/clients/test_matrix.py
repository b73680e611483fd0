"""Real, unmodified clients against `outcrop serve` on real weights: every client, with every kind of
credentials, makes every call it has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from serving import ANY_MODEL, COMMAND, Served, environment, serving

from . import cases
from .programs import CLIENTS, Client, Outcome, run

# float32, in which no two tokens are so close that the shape of a step could decide between them
OPTIONS = ("--id", ANY_MODEL, "--dtype", "float32", "--max-model-len", "2048", "--fault-injection")
Credentials = Mapping[str, str]
UNSIGNED: Credentials = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
BEARER = "AWS_BEARER_TOKEN_BEDROCK"


class Keys:
    """The keys of a server that asks for one, made by `outcrop keys`."""

    def __init__(self, folder: Path) -> None:
        auth = {"mode": "required", "keys": str(folder / "keys.json")}
        self.variables = {"OUTCROP_AUTH": json.dumps(auth)}
        self._created = self._make("create", "--name", "clients")

    def _make(self, *words: str) -> dict[str, str]:
        done = subprocess.run(
            [*COMMAND, "keys", *words, "--json"],
            env=environment(**self.variables),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made: dict[str, str] = json.loads(done.stdout)
        return made

    def credentials(self, access: str) -> Credentials:
        """What goes into a client's environment. access: "signed", "session" or "bearer"."""
        if access == "session":
            return self._make("session", "clients")
        bearer = {BEARER: self._created[BEARER]}
        if access == "bearer":
            return bearer
        return {name: value for name, value in self._created.items() if name not in bearer}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """On loopback nobody needs a key."""
    with serving(tmp_path_factory.mktemp("open"), *OPTIONS) as served:
        yield served


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def closed_server(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Unless it is told to ask for one."""
    with serving(tmp_path_factory.mktemp("closed"), *OPTIONS, **keys.variables) as served:
        yield served


@pytest.fixture(scope="module")
def reference(open_server: Served) -> cases.Reference:
    return cases.Reference(open_server.url)


Outcomes = Callable[[Client, str], Outcome]


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest) -> Outcomes:
    """A client's whole program is run once for each kind of credentials."""
    seen: dict[tuple[str, str], Outcome] = {}

    def outcome(client: Client, access: str) -> Outcome:
        key = client.name, access
        if key not in seen:
            if access == "unsigned":
                server, credentials = request.getfixturevalue("open_server"), UNSIGNED
            else:
                server = request.getfixturevalue("closed_server")
                credentials = request.getfixturevalue("keys").credentials(access)
            seen[key] = run(client, server.url, credentials, client.checks)
        return seen[key]

    return outcome


def rows(*lists: tuple[str, ...]) -> list[Any]:
    """Every client with each of these, the slow ones marked: all but those that need no installation."""
    return [
        pytest.param(
            client,
            *values,
            id="-".join((client.name, *values)),
            marks=() if client.environment == "server" else pytest.mark.slow,
        )
        for client in CLIENTS
        for values in lists
        if not set(values) & client.lacks
    ]


CHECKS = (*cases.EXPECTATIONS, *cases.MESSAGES)
CALLS = [(access, check) for access in ("unsigned", "signed", "bearer") for check in CHECKS]


@pytest.mark.parametrize(("client", "access", "check"), rows(*CALLS))
def test_call(
    outcome: Outcomes,
    reference: cases.Reference,
    record_property: Callable[[str, object], None],
    client: Client,
    access: str,
    check: str,
) -> None:
    record_property("cell", (client.name, access, check))
    got = outcome(client, access)
    record_property("client", (client.name, dict(got.versions), got.transport))
    result = got.results[check]
    if check in cases.MESSAGES:
        assert client.errors[check] in result["raised"]
        assert cases.MESSAGES[check] in result["message"]
        return
    assert "raised" not in result, f"{result['raised']}: {result['message']}"
    expect = cases.says_something if check in client.own_words else cases.EXPECTATIONS[check]
    expect(result, reference)


@pytest.mark.parametrize("client", rows(()))
def test_temporary_credentials(
    closed_server: Served, keys: Keys, reference: cases.Reference, client: Client
) -> None:
    result = run(client, closed_server.url, keys.credentials("session"), ["plain"]).results["plain"]
    cases.plain(result, reference)


@pytest.mark.parametrize(("client", "access"), rows(("signed",), ("bearer",)))
def test_a_wrong_secret_is_refused(closed_server: Served, keys: Keys, client: Client, access: str) -> None:
    """As the exception that the client has for it."""
    right = keys.credentials(access)
    secret = BEARER if access == "bearer" else "AWS_SECRET_ACCESS_KEY"
    wrong = {**right, secret: right[secret][:-4] + "AAAA"}
    result = run(client, closed_server.url, wrong, ["plain"]).results["plain"]
    assert client.errors["denied"] in result["raised"]
