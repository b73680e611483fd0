"""Servers under test whose engine is the real vLLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import serving
import vllm_engine as vllm

from outcrop.engine.client import GenerationDelta, GenerationRequest
from outcrop.engine.config import EngineConfig
from outcrop.engine.process_client import ProcessClient

from ..api.server import Server, running


class VllmClient(ProcessClient):
    """Counts what it is asked, as FakeEngine does."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.asked = self._open = 0

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        self.asked += 1
        return self._counted(super().generate(request))

    async def _counted(
        self, deltas: AsyncGenerator[GenerationDelta, None]
    ) -> AsyncGenerator[GenerationDelta, None]:
        self._open += 1
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    yield delta
        finally:
            self._open -= 1

    @property
    def idle(self) -> bool:
        """Nobody waits for an answer. What vLLM still holds then is told once a second: see `at_rest`."""
        return not self._open

    @property
    def at_rest(self) -> bool:
        stats = self.stats
        return self.idle and not (stats.running or stats.waiting or stats.kv_blocks_used)


@contextmanager
def running_vllm(config: EngineConfig, **options: Any) -> Iterator[Server]:
    """`running` with such an engine. It must have survived everything, and hold nothing at the end."""
    engine = VllmClient(config)
    with running(engine, checkpoint=vllm.checkpoint(), wait_ready=False, **options) as server:  # type: ignore[arg-type]
        serving.eventually(lambda: engine.ready or engine.over, "vLLM", vllm.START)
        assert engine.ready, engine.reason
        yield server
        serving.eventually(lambda: engine.at_rest, "vLLM at rest")
        assert engine.restarts == 0
