"""What `--html FILE` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from outcrop.cli.serve import fail


def write_html(path: Path, make: Callable[[], str]) -> None:
    """The report that `make` makes; exits with 2 where it cannot be made or written. What is said of it goes
    to stderr: a program may read stdout."""
    from outcrop.svg import NoMatplotlib

    try:
        path.write_text(make(), encoding="utf-8")
    except NoMatplotlib as error:
        fail(f"--html: {error}")
    except OSError as error:
        fail(f"--html {path}: {error.strerror or error}")
    typer.echo(f"written: {path}", err=True)
