"""Engine processes of the fake backend: what is asked of them, and how tests wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from reference import capabilities

from outcrop.engine.client import EngineClient, FinishReason
from outcrop.engine.config import EngineConfig
from outcrop.engine.messages import GenerationRequest, SamplingParams

BLOCK = 16
CONFIG = EngineConfig(
    model="", backend="fake", vocab_size=1000, max_model_len=512, max_rows=8, block_size=BLOCK, fake_step_ms=2
)
CAPS = capabilities(vocab_size=1000, max_model_len=512)

Answer = tuple[list[int], FinishReason | None]


def request(name: str, *, tokens: int = 200, prompt: list[int] | None = None) -> GenerationRequest:
    sampling = SamplingParams(tokens, temperature=0.7, seed=int.from_bytes(name.encode()))
    return GenerationRequest(name, prompt or [len(name), 3, 5, 7], sampling)


async def collect(engine: EngineClient, wanted: GenerationRequest) -> Answer:
    tokens, finish = [], None
    async for delta in engine.generate(wanted):
        tokens += delta.tokens
        finish = delta.finish
    return tokens, finish


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(150):
            await scenario()

    asyncio.run(bounded())
