"""One stream over several engines, where whoever serves it can be lost at any time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from outcrop.engine.client import EngineUnavailable
from outcrop.engine.messages import GenerationDelta, GenerationRequest

logger = logging.getLogger(__name__)

MAX_LOSSES = 4
"""Engines that a request may lose with no token in between before it is given up."""

_PAUSE = 0.5
"""Seconds between two losses that follow one another: whoever chooses the engine may not have heard yet."""


async def relayed(
    request: GenerationRequest,
    ask: Callable[[GenerationRequest], AsyncGenerator[GenerationDelta, None]],
    lost: tuple[type[Exception], ...],
) -> AsyncGenerator[GenerationDelta, None]:
    """The deltas of a request, as of `EngineClient.generate`, from as many engines as it takes.

    ask: opens a stream at an engine that is up; the request has an id of its own each time, since an engine
    that was only out of reach may still have it. lost: what it raises when that engine is gone, or cannot
    take the request. The next one is then asked for prompt + tokens already delivered; since draws depend on
    seed and position only, the stream goes on as if nothing had happened. That a request kills engines is
    found out where they are supervised (`Dispatcher`): here losses are the machines' fault, and a request
    that has too many ends with EngineUnavailable, which clients may retry.
    """
    tokens = list(request.resumed)
    first: GenerationDelta | None = None
    losses = moves = 0
    while True:
        name = f"{request.request_id}.{moves}" if moves else request.request_id
        asked = msgspec.structs.replace(request, request_id=name, resumed=list(tokens))
        try:
            async with aclosing(ask(asked)) as deltas:
                async for delta in deltas:
                    # What was cached, and how long it waited, is what the first engine said.
                    first = first or delta
                    if delta.tokens:
                        losses = 0
                        tokens += delta.tokens
                    yield msgspec.structs.replace(
                        delta,
                        request_id=request.request_id,
                        cached=first.cached,
                        queued=first.queued,
                        held=first.held,
                    )
                    if delta.finish is not None:
                        return
        except lost as error:
            reason = str(error)
        else:
            reason = "its stream ended without a reason"
        losses, moves = losses + 1, moves + 1
        if losses == MAX_LOSSES:
            raise EngineUnavailable(f"{losses} engines in a row were lost: {reason}")
        logger.warning("request %s loses its engine and goes to another: %s", request.request_id, reason)
        await asyncio.sleep(_PAUSE * (losses - 1))
