"""Who is blamed for a crash, and what a restarted engine is told."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.engine.dispatch import Dispatcher
from outcrop.engine.frames import Abort, Add, Command
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest, SamplingParams


class Engine:
    """Records what it is sent; the test decides what it answers."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.dispatcher = Dispatcher(self.sent.append)
        self.tasks: dict[str, asyncio.Task[list[int]]] = {}

    async def open(self, *names: str) -> None:
        for name in names:
            request = GenerationRequest(name, [1, 2], SamplingParams(10))
            stream = self.dispatcher.generate(request, submit=lambda: True)
            self.tasks[name] = asyncio.create_task(read(stream))
        await asyncio.sleep(0)
        self.dispatcher.started(list(names))

    def give(self, name: str, *tokens: int, finish: FinishReason | None = None) -> None:
        self.dispatcher.deliver([GenerationDelta(name, list(tokens), len(tokens), 0, finish)])

    def restart(self) -> list[tuple[str, list[int]]]:
        self.dispatcher.crashed()
        self.sent.clear()
        self.dispatcher.resubmit()
        return self.added()

    def added(self) -> list[tuple[str, list[int]]]:
        return [(c.request.request_id, c.request.resumed) for c in self.sent if isinstance(c, Add)]


async def read(stream: AsyncGenerator[GenerationDelta, None]) -> list[int]:
    return [token async for delta in stream for token in delta.tokens]


def test_suspects_are_tried_one_after_another_with_the_tokens_they_had() -> None:
    async def scenario() -> None:
        engine = Engine()
        await engine.open("a", "b")
        engine.give("a", 7, 8)
        await engine.open("waiting")
        engine.dispatcher._streams["waiting"].started = False
        assert engine.restart() == [("waiting", []), ("a", [7, 8])]
        engine.give("a", 9)
        assert engine.added()[2:] == [("b", [])]
        for name in ("a", "b", "waiting"):
            engine.give(name, 5, finish=FinishReason.LENGTH)
        assert [await engine.tasks[name] for name in ("a", "b", "waiting")] == [[7, 8, 9, 5], [5], [5]]

    asyncio.run(scenario())


def test_only_the_request_without_progress_is_refused_at_the_second_crash() -> None:
    async def scenario() -> None:
        engine = Engine()
        await engine.open("good", "bad", "later")
        engine.restart()
        engine.dispatcher.started(["good"])
        engine.give("good", 1)
        engine.dispatcher.started(["bad"])
        assert engine.restart() == [("good", [1])]
        with pytest.raises(ModelFailure, match="twice"):
            await engine.tasks["bad"]
        engine.give("good", 2, finish=FinishReason.EOS)
        assert engine.added()[1:] == [("later", [])]
        engine.give("later", 3, finish=FinishReason.EOS)
        assert await engine.tasks["good"] == [1, 2]
        assert await engine.tasks["later"] == [3]

    asyncio.run(scenario())


def test_a_suspect_that_is_abandoned_makes_way_for_the_next() -> None:
    async def scenario() -> None:
        engine = Engine()
        await engine.open("first", "second", "third")
        assert engine.restart() == [("first", [])]
        for name in ("second", "first"):
            engine.tasks[name].cancel()
            await asyncio.gather(engine.tasks[name], return_exceptions=True)
        assert engine.added()[1:] == [("third", [])]
        assert [c.request_id for c in engine.sent if isinstance(c, Abort)] == ["second", "first"]

    asyncio.run(scenario())


def test_a_failed_row_and_a_lost_engine_are_told_apart() -> None:
    async def scenario() -> None:
        engine = Engine()
        await engine.open("nan", "open")
        engine.give("nan", finish=FinishReason.ERROR)
        engine.dispatcher.fail_all("out of restarts")
        with pytest.raises(ModelFailure, match="not numbers"):
            await engine.tasks["nan"]
        with pytest.raises(EngineUnavailable, match="out of restarts"):
            await engine.tasks["open"]

    asyncio.run(scenario())
