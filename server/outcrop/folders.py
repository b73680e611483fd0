"""Outcrop's own folders in a user's home, where the XDG base directory specification has them."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """For what must be kept: ~/.local/state/outcrop unless XDG_STATE_HOME says otherwise."""
    return _folder("XDG_STATE_HOME", "~/.local/state")


def cache_folder() -> Path:
    """For what can be made again: ~/.cache/outcrop unless XDG_CACHE_HOME says otherwise."""
    return _folder("XDG_CACHE_HOME", "~/.cache")


def _folder(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    return (Path(given) if os.path.isabs(given) else Path(default).expanduser()) / "outcrop"
