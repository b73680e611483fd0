"""A stream over engines that are lost: no token twice, none missing, and an end."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from reference import answer, capabilities

from outcrop.backends.fake import FakeBackend
from outcrop.engine import relay
from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.engine.in_process import InProcessClient
from outcrop.engine.messages import GenerationDelta, GenerationRequest, SamplingParams
from outcrop.engine.relay import relayed

CAPS = capabilities()


class Lost(Exception):
    """Whoever served the stream is gone."""


async def read(stream: AsyncGenerator[GenerationDelta, None]) -> list[GenerationDelta]:
    return [delta async for delta in stream]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_PAUSE", 0.0)


@pytest.mark.parametrize("each", [1, 7])
def test_an_answer_from_many_engines_is_the_one_of_one_engine(each: int) -> None:
    """Every engine is lost after so many tokens, and none of them knows of another."""

    async def scenario() -> None:
        asked: list[GenerationRequest] = []

        async def ask(request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
            asked.append(request)
            engine = InProcessClient(FakeBackend(CAPS))
            await engine.start()
            try:
                told = list(request.resumed)
                async with aclosing(engine.generate(request)) as deltas:
                    async for delta in deltas:
                        told += delta.tokens
                        assert delta.generated == len(told)
                        # Of several tokens that came at once, too, only the first `each` are heard of.
                        if len(told) - len(request.resumed) < each:
                            yield delta
                            continue
                        heard = told[: len(request.resumed) + each]
                        if heard == told and delta.finish is not None:
                            yield delta
                        else:
                            late = len(told) - len(heard)
                            rest = delta.tokens[: len(delta.tokens) - late]
                            yield GenerationDelta(delta.request_id, rest, len(heard))
                        raise Lost
            finally:
                await engine.close()

        sampling = SamplingParams(20, temperature=0.8, seed=3, frequency_penalty=0.5)
        wanted = GenerationRequest("r", [5, 6, 7, 8, 9], sampling)
        deltas = await read(relayed(wanted, ask, (Lost,)))
        tokens, finish = answer(wanted, CAPS)
        assert [token for delta in deltas for token in delta.tokens] == tokens
        assert deltas[-1].finish is finish
        assert deltas[-1].generated == 20
        # What a client is told of its progress never jumps, whoever tells it.
        told = [delta.generated for delta in deltas]
        assert told == [sum(len(d.tokens) for d in deltas[: n + 1]) for n in range(len(deltas))]
        assert {delta.request_id for delta in deltas} == {"r"}
        assert len(asked) == -(-20 // each)
        assert len({request.request_id for request in asked}) == len(asked)

    asyncio.run(scenario())


def test_a_request_that_gets_nowhere_is_given_up_and_one_that_gets_on_is_not() -> None:
    async def scenario() -> None:
        calls = 0

        async def ask(request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
            nonlocal calls
            calls += 1
            if calls % 3 == 0 and calls < 13:
                yield GenerationDelta(request.request_id, [calls], len(request.resumed) + 1)
            raise Lost("no host")

        stream = relayed(GenerationRequest("r", [1], SamplingParams(50)), ask, (Lost,))
        assert [(await anext(stream)).tokens for _ in range(4)] == [[3], [6], [9], [12]]
        with pytest.raises(EngineUnavailable, match="no host"):
            await anext(stream)

    asyncio.run(scenario())


def test_what_the_request_is_to_blame_for_is_not_tried_again() -> None:
    async def scenario() -> None:
        async def ask(request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
            yield GenerationDelta(request.request_id, [1], 1)
            raise ModelFailure("NaN")

        stream = relayed(GenerationRequest("r", [1], SamplingParams(5)), ask, (Lost,))
        assert (await anext(stream)).tokens == [1]
        with pytest.raises(ModelFailure):
            await anext(stream)

    asyncio.run(scenario())


def test_closing_the_stream_closes_the_engines() -> None:
    async def scenario() -> None:
        closed = asyncio.Event()

        async def ask(request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
            try:
                while True:
                    yield GenerationDelta(request.request_id, [1], 1)
            finally:
                closed.set()

        stream = relayed(GenerationRequest("r", [1], SamplingParams(5)), ask, (Lost,))
        await anext(stream)
        await stream.aclose()
        assert closed.is_set()

    asyncio.run(scenario())
