"""Looking again and again for what other servers on the database do, which nothing else tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from outcrop.ledger.connect import AWAY, reason_of

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


async def watch(
    look: Callable[[], Awaitable[None]],
    meanwhile: str,
    pause: Callable[[], Awaitable[None]] | None = None,
) -> NoReturn:
    """Call `look` until cancelled, whatever it raises. meanwhile: what is so while the database is away,
    which is said once. pause: what is waited for in between; a second, unless it is given."""
    away = False
    while True:
        try:
            await look()
            away = False
        except AWAY as error:
            if not away:
                logger.error("%s while the database is away: %s", meanwhile, reason_of(error))
            away = True
        except Exception:
            logger.exception("what is in the database could not be looked after")
        await (pause or _second)()


async def _second() -> None:
    await asyncio.sleep(LOOK_SECONDS)
