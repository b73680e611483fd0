"""Several answers at once, as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merge(generators: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """Everything that the generators yield, as it comes, each with the index of its generator.

    The first that raises ends it all. The generators are closed when this one is.
    """
    if len(generators) == 1:
        async with aclosing(generators[0]) as only:
            async for item in only:
                yield 0, item
        return
    news: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue()

    async def pump(index: int, generator: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(generator):
                async for item in generator:
                    news.put_nowait((index, item))
        except Exception as error:
            news.put_nowait(error)
        else:
            news.put_nowait(None)

    tasks = [asyncio.create_task(pump(index, each)) for index, each in enumerate(generators)]
    try:
        going = len(tasks)
        while going:
            event = await news.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                going -= 1
            else:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
