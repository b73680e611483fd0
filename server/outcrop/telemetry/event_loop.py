"""How promptly the event loop comes round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

_INTERVAL = 0.1
"""Seconds between two looks: often enough to meet what holds the loop up, and too seldom to cost anything."""


async def watch_lag(observe: Callable[[float], None]) -> None:
    """Tell `observe`, from now until cancelled, by how many seconds each look came later than it was due.

    Whatever waits for this loop, a token on its way to its client among it, is as late. uvloop's timers are
    good to a millisecond.
    """
    while True:
        due = perf_counter() + _INTERVAL
        await asyncio.sleep(_INTERVAL)
        observe(max(0.0, perf_counter() - due))
