"""`outcrop simulate`: what an instance does under a load, before it is paid for.

What the commands work with is imported when they run: it takes a while, and `outcrop --help` needs none of
it."""

from __future__ import annotations

from outcrop.cli.simulate.command import app

__all__ = ["app"]
