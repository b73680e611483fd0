"""Where tables are printed."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH = 132
"""Columns where there is no terminal to ask."""


def wide_console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
