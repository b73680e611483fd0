"""What kind of place the setting `state` names. Importing this takes no time, and databases do."""

from __future__ import annotations

from pathlib import Path


def is_url(state: str | Path) -> bool:
    """Whether state is kept where a URL says, and not in a file of SQLite's."""
    return "://" in str(state)


def is_shared(state: str | Path | None) -> bool:
    """Whether it is the URL of a PostgreSQL server, which servers on other hosts reach, too."""
    return str(state).startswith(("postgresql:", "postgresql+", "postgres:"))
