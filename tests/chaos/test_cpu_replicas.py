"""Real weights: two replicas on the CPU answer as one does."""

import asyncio
from pathlib import Path

import pytest
from demo import PATH, prompts

from outcrop.engine.client import GenerationRequest, SamplingParams
from outcrop.engine.replicas import ReplicaSet
from outcrop.replica_configs import cache_block, replica_configs
from outcrop.settings import ModelSettings
from outcrop_compile.processors import divided_processors

TOKENS = 12


def requests() -> list[GenerationRequest]:
    """Greedy ones and sampled ones."""
    return [
        GenerationRequest(
            f"r{index}", prompt, SamplingParams(TOKENS, temperature=0.9 * (index % 2), seed=index)
        )
        for index, prompt in enumerate(prompts()[:8])
    ]


def answers(replicas: int, cache: Path) -> tuple[list[list[int]], list[int], list[tuple[int, ...]]]:
    """Of all requests at once, with how many tokens each replica generated and the processors it was
    given."""

    async def collect(engine: ReplicaSet, request: GenerationRequest) -> list[int]:
        return [token async for delta in engine.generate(request) for token in delta.tokens]

    async def scenario() -> tuple[list[list[int]], list[int], list[tuple[int, ...]]]:
        model = ModelSettings(
            path=PATH, replicas=replicas, max_model_len=256, weight_cache=str(cache), threads=1
        )
        engine = ReplicaSet(replica_configs(model), block_size=cache_block(model))
        try:
            async with asyncio.timeout(120):
                await engine.start()
                while not all(each.ready for each in engine.replicas):
                    await asyncio.sleep(0.01)
                found = await asyncio.gather(*(collect(engine, each) for each in requests()))
                generated = [each.stats.generation_tokens for each in engine.replicas]
                return list(found), generated, [config.processors for config in engine.configs]
        finally:
            await engine.close()

    return asyncio.run(scenario())


@pytest.mark.slow
def test_two_replicas_answer_as_one_does(tmp_path: Path) -> None:
    alone, _, anywhere = answers(1, tmp_path)
    shared, generated, pinned = answers(2, tmp_path)
    assert shared == alone
    assert all(len(tokens) > 3 for tokens in alone)
    assert min(generated) >= 2 * TOKENS
    assert anywhere == [()]
    assert pinned == divided_processors(2)
