"""Real, unmodified clients against `outcrop serve` on real weights: every client, with every kind of
credentials, makes every call it has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import vllm_engine as vllm
from serving import ANY_MODEL, COMMAND, Served, environment, serving

from . import cases
from .programs import CLIENTS, Client, Outcome, run

OPTIONS = ("--id", ANY_MODEL, "--fault-injection")
Options = tuple[str, ...]
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
        bearer = access == "bearer"
        return {name: value for name, value in self._created.items() if (name == BEARER) == bearer}


@pytest.fixture(scope="module")
def open_server(engine: Options, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """On loopback nobody needs a key."""
    with serving(tmp_path_factory.mktemp("open"), *OPTIONS, *engine, patience=vllm.START) as served:
        yield served


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the loopback address, with its key in the same file."""
    openssl = which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", f"{path}.key", "-out", str(path),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def closed_server(
    engine: Options, keys: Keys, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """As it faces a network: keys, and HTTPS, without which boto3 sends no API key."""
    tls = ("--tls-certificate", str(certificate), "--tls-key", f"{certificate}.key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        options = (*OPTIONS, *engine, *tls)
        folder = tmp_path_factory.mktemp("closed")
        with serving(folder, *options, patience=vllm.START, **keys.variables) as served:
            yield served


@dataclass(frozen=True)
class Way:
    """How a client comes to a server, and as whom."""

    url: str
    credentials: Credentials


@pytest.fixture(scope="module")
def way(request: pytest.FixtureRequest) -> Callable[[str], Way]:
    """access: "unsigned", "signed", "session" (temporary credentials) or "bearer"."""

    def way(access: str) -> Way:
        if access == "unsigned":
            return Way(request.getfixturevalue("open_server").url, UNSIGNED)
        trusted = str(request.getfixturevalue("certificate"))
        trust = dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), trusted)
        credentials = request.getfixturevalue("keys").credentials(access)
        return Way(request.getfixturevalue("closed_server").url, {**credentials, **trust})

    return way


@pytest.fixture(scope="module")
def reference(open_server: Served) -> cases.Reference:
    return cases.Reference(open_server.url)


Outcomes = Callable[[Client, str], Outcome]


@pytest.fixture(scope="module")
def outcome(way: Callable[[str], Way]) -> Outcomes:
    """A client's whole program is run once for each kind of credentials."""
    seen: dict[tuple[str, str], Outcome] = {}

    def outcome(client: Client, access: str) -> Outcome:
        key = client.name, access
        if key not in seen:
            to = way(access)
            seen[key] = run(client, to.url, to.credentials, client.checks)
        return seen[key]

    return outcome


def rows(*lists: tuple[str, ...]) -> list[Any]:
    """Every client with each of these. Slow: all but the calls that need neither keys nor an installation."""
    return [
        pytest.param(
            client,
            *values,
            id="-".join((client.name, *values)),
            marks=() if client.environment == "server" and "unsigned" in values else pytest.mark.slow,
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
def test_temporary_credentials(way: Callable[[str], Way], reference: cases.Reference, client: Client) -> None:
    to = way("session")
    cases.plain(run(client, to.url, to.credentials, ["plain"]).results["plain"], reference)


@pytest.mark.parametrize(("client", "access"), rows(("signed",), ("bearer",)))
def test_a_wrong_secret_is_refused(way: Callable[[str], Way], client: Client, access: str) -> None:
    """As the exception that the client has for it."""
    to = way(access)
    secret = BEARER if access == "bearer" else "AWS_SECRET_ACCESS_KEY"
    wrong = {**to.credentials, secret: to.credentials[secret][:-4] + "AAAA"}
    result = run(client, to.url, wrong, ["plain"]).results["plain"]
    assert client.errors["denied"] in result["raised"]
