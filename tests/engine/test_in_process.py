"""The engine on a thread of this process: the same answers and errors as in a process of its own."""

import asyncio

import pytest
from reference import answer, capabilities

from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.engine.client import EngineUnavailable
from outcrop.engine.in_process import InProcessClient
from outcrop.engine.messages import GenerationRequest, SamplingParams


async def collect(client: InProcessClient, request: GenerationRequest) -> list[int]:
    return [token async for delta in client.generate(request) for token in delta.tokens]


def test_answers_are_the_models_and_an_abandoned_one_frees_its_blocks() -> None:
    async def scenario() -> None:
        caps = capabilities()
        client = InProcessClient(FakeBackend(caps))
        await client.start()
        assert client.ready
        assert client.max_model_len == 100
        abandoned = client.generate(GenerationRequest("gone", [9, 9], SamplingParams(90)))
        await anext(abandoned)
        await abandoned.aclose()
        wanted = [GenerationRequest(str(n), [n, 5, 7], SamplingParams(30)) for n in range(6)]
        answers = await asyncio.gather(*(collect(client, request) for request in wanted))
        assert answers == [answer(request, caps)[0] for request in wanted]
        async with asyncio.timeout(60):
            while client.stats.kv_blocks_used:
                await asyncio.sleep(0.005)
        await client.close()
        with pytest.raises(EngineUnavailable):
            client.generate(wanted[0])

    asyncio.run(scenario())


def test_a_device_error_ends_every_open_request() -> None:
    async def scenario() -> None:
        client = InProcessClient(FakeBackend(capabilities(), FakeHooks(poison=49)))
        await client.start()
        with pytest.raises(EngineUnavailable, match="token 49"):
            await collect(client, GenerationRequest("bad", [49], SamplingParams(5)))
        assert not client.ready
        await client.close()

    asyncio.run(scenario())
