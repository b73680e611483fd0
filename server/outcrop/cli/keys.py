"""`outcrop keys`: who may call a server.

What the commands work with is imported when they run: it takes a while, and `outcrop --help` needs none of
it.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outcrop.cli.serve import fail
from outcrop.settings import PRINCIPAL_NAME, load_key_settings

if TYPE_CHECKING:
    from outcrop.api.auth.keys import Key, KeyStore

app = typer.Typer(help="Make, list and end the keys that may call a server.", no_args_is_help=True)

_DURATION = re.compile(r"([0-9]{1,6})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_MAX_SESSION_HOURS = 36

Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The server's configuration file, TOML. Also OUTCROP_CONFIG=FILE."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Named = Annotated[str, typer.Argument(metavar="KEY", help="Id or name of the key.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What to call it; it appears in refusals.")] = "",
    tenant: Annotated[
        str, typer.Option(help="Keys of one tenant share cached prompts (default: a tenant of its own).")
    ] = "",
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="IAM policy, JSON (default: everything is allowed).")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Instead of a policy: ids it may use. May be repeated."),
    ] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute, read and written.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="After 12h or 30d, or on 2027-01-31.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make a key and print its secrets, once. Paste what is printed into a shell, or:

    eval "$(outcrop keys create --name me)"
    """
    from outcrop.api.auth.policy import key_policy

    now = time.time()
    with _store(config) as store:
        if not re.match(PRINCIPAL_NAME, name):
            raise ValueError(f"--name: {name!r} may have 64 letters, digits and +=,.@_-")
        until = None if expires is None else _expiry(expires, now)
        document = key_policy(policy, models or [])
        key, bearer = store.create(
            now, name=name, tenant=tenant, policy=document, rpm=rpm, tpm=tpm, expires=until
        )
        secret = store.master().secret_access_key(key.id)
    _export(
        as_json,
        AWS_ACCESS_KEY_ID=key.id,
        AWS_SECRET_ACCESS_KEY=secret,
        AWS_BEARER_TOKEN_BEDROCK=bearer,
    )


@app.command(name="list")
def list_keys(as_json: Json = False, config: Config = None) -> None:
    """Show the keys; never their secrets."""
    with _store(config) as store:
        keys = sorted(store.read().values(), key=lambda key: (key.created, key.id))
    rows = [_row(key, time.time()) for key in keys]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            typer.echo("  ".join(map(str.ljust, line, widths)).rstrip())
    else:
        typer.echo("there are no keys; make one with: outcrop keys create")


@app.command()
def revoke(key: Named, config: Config = None) -> None:
    """End a key at once, and with it the temporary credentials made from it."""
    with _store(config) as store:
        revoked = store.revoke(key, time.time())
    typer.echo(f"revoked {revoked.id}")


@app.command()
def session(
    key: Named,
    hours: Annotated[float, typer.Option(min=0.25, max=_MAX_SESSION_HOURS, help="How long.")] = 1.0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make temporary credentials that may do what the key may."""
    from outcrop.api.auth.keys import find
    from outcrop.api.auth.session import new_session

    now = time.time()
    with _store(config) as store:
        found = find(store.read(), key)
        if (state := found.state(now)) != "active":
            raise ValueError(f"{key}: this key is {state}")
        credentials = new_session(found.id, int(now + hours * 3600), store.master())
    _export(
        as_json,
        AWS_ACCESS_KEY_ID=credentials.access_key_id,
        AWS_SECRET_ACCESS_KEY=credentials.secret_access_key,
        AWS_SESSION_TOKEN=credentials.session_token,
    )


@contextmanager
def _store(config: Path | None) -> Iterator[KeyStore]:
    """The server's keys, wherever they are. A mistake is told in a line."""
    from outcrop.key_store import key_store
    from outcrop.ledger.location import is_shared

    try:
        settings = load_key_settings(config)
        if not is_shared(settings.state):
            yield key_store(settings.auth, None)
            return
        from outcrop.ledger.database import Database

        with closing(Database(settings.state)) as database:
            yield key_store(settings.auth, database)
    except ValueError as error:
        fail(str(error))


def _expiry(text: str, now: float) -> int:
    if match := _DURATION.fullmatch(text):
        return int(now) + int(match[1]) * _SECONDS[match[2]]
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--expires: {text!r} is neither a time such as 12h or 30d nor a date") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if when.timestamp() <= now:
        raise ValueError(f"--expires: {text} is over")
    return int(when.timestamp())


def _row(key: Key, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant or key.id,
        "state": key.state(now),
        "created": _date(key.created),
        "expires": None if key.expires is None else _date(key.expires),
        "rpm": key.rpm,
        "tpm": key.tpm,
        "policy": "everything" if key.policy is None else "restricted",
    }


def _cell(value: object) -> str:
    return "-" if value in (None, "") else str(value)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _export(as_json: bool, **variables: str) -> None:
    if as_json:
        typer.echo(json.dumps(variables, indent=2))
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
