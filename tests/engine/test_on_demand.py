"""An engine that starts when it is asked."""

import asyncio

import pytest
from reference import capabilities

from outcrop.backends.fake import FakeBackend
from outcrop.engine.client import EngineClient, EngineUnavailable, GenerationRequest, SamplingParams
from outcrop.engine.in_process import InProcessClient
from outcrop.engine.on_demand import OnDemandEngine
from outcrop.engine.stats import EngineStats

REQUEST = GenerationRequest("a", [1, 2, 3], SamplingParams(5))


def test_it_is_made_when_it_is_woken() -> None:
    made: list[EngineClient] = []

    def make() -> EngineClient:
        made.append(InProcessClient(FakeBackend(capabilities())))
        return made[-1]

    async def use() -> None:
        engine = OnDemandEngine("a", make)
        await asyncio.sleep(0)
        assert (made, engine.ready, engine.max_model_len) == ([], False, 0)
        assert (engine.stats, engine.restarts, engine.drained) == (EngineStats(), 0, "")
        with pytest.raises(EngineUnavailable):
            engine.generate(REQUEST)
        assert engine.wake()
        assert engine.wake()
        await engine.start()
        assert len(made) == 1
        assert engine.ready
        assert engine.max_model_len == capabilities().max_model_len
        deltas = [delta async for delta in engine.generate(REQUEST)]
        assert deltas[-1].generated == 5
        await engine.close()
        assert not engine.ready

    asyncio.run(use())


@pytest.mark.parametrize("error", [ValueError("no such weights"), EngineUnavailable("no memory")])
def test_why_it_did_not_start(error: Exception) -> None:
    def make() -> EngineClient:
        raise error

    async def use() -> None:
        engine = OnDemandEngine("a", make)
        with pytest.raises(EngineUnavailable, match=str(error)):
            await engine.start()
        assert engine.drained == str(error)
        assert not engine.ready
        await engine.close()

    asyncio.run(use())


def test_one_that_nobody_asked_for_is_closed() -> None:
    def make() -> EngineClient:
        raise AssertionError

    asyncio.run(OnDemandEngine("a", make).close())
