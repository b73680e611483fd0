"""An engine that is there when somebody first asks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from outcrop.engine.abilities import ABILITIES, Abilities
from outcrop.engine.client import EngineClient, EngineUnavailable
from outcrop.engine.messages import GenerationDelta, GenerationRequest
from outcrop.engine.stats import EngineStats, Routing

logger = logging.getLogger(__name__)


class OnDemandEngine(EngineClient):
    """Makes and starts another engine when it is woken. One that does not start stays down; `drained` says
    why."""

    def __init__(self, name: str, make: Callable[[], EngineClient]) -> None:
        """name: in the log."""
        self._name = name
        self._make = make
        self._engine: EngineClient | None = None
        self._starting: asyncio.Task[None] | None = None
        self._failure = ""

    def wake(self) -> bool:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        return True

    async def start(self) -> None:
        self.wake()
        assert self._starting is not None
        await asyncio.shield(self._starting)
        if self._failure:
            raise EngineUnavailable(self._failure)

    async def _start(self) -> None:
        logger.info("engine of %s: starting", self._name)
        try:
            self._engine = await asyncio.to_thread(self._make)
            await self._engine.start()
        except (EngineUnavailable, ValueError, OSError) as error:
            self._failure = str(error)
            logger.error("engine of %s: %s", self._name, error)

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)

    @property
    def ready(self) -> bool:
        return self._engine is not None and self._engine.ready

    @property
    def drained(self) -> str:
        return self._failure or (self._engine.drained if self._engine else "")

    @property
    def max_model_len(self) -> int:
        return self._engine.max_model_len if self._engine else 0

    @property
    def abilities(self) -> Abilities:
        return self._engine.abilities if self._engine else ABILITIES["outcrop"]

    @property
    def stats(self) -> EngineStats:
        return self._engine.stats if self._engine else EngineStats()

    @property
    def restarts(self) -> int:
        return self._engine.restarts if self._engine else 0

    @property
    def replicas(self) -> Sequence[EngineClient]:
        return self._engine.replicas if self._engine else (self,)

    @property
    def routing(self) -> Routing:
        return self._engine.routing if self._engine else Routing()

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        if self._engine is None:
            raise EngineUnavailable("the engine has not been started")
        return self._engine.generate(request)
