"""A line that says how far a long run is: only on a terminal, and only once it has taken a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_PATIENCE = 0.5  # seconds before the first sign
_INTERVAL = 0.1  # seconds between two


@contextmanager
def progress_line(stream: TextIO) -> Iterator[Callable[[str, float], None]]:
    """What is called with what is done and the fraction of it; the line is gone at the end."""
    begun = shown = time.monotonic()
    written = 0

    def show(what: str, fraction: float) -> None:
        nonlocal shown, written
        now = time.monotonic()
        if not stream.isatty() or now - begun < _PATIENCE or now - shown < _INTERVAL:
            return
        shown = now
        left = f", about {(now - begun) * (1 - fraction) / fraction:.0f} s left" if fraction > 0.01 else ""
        line = f"{what:<40} {fraction:4.0%}{left}"
        stream.write("\r" + line.ljust(written))
        stream.flush()
        written = len(line)

    try:
        yield show
    finally:
        if written:
            stream.write("\r" + " " * written + "\r")
            stream.flush()
