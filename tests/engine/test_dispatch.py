"""Who is blamed for a crash, and what a restarted engine is told."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.engine.dispatch import Dispatcher
from outcrop.engine.frames import Abort, Add, Command
from outcrop.engine.messages import (
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    SamplingParams,
    TokenLogprobs,
)


class Engine:
    """Records what it is sent; the test decides what it answers."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.dispatcher = Dispatcher(self.sent.append, clock=lambda: 0.0)
        self.tasks: dict[str, asyncio.Task[list[int]]] = {}
        self.slots: dict[str, int] = {}

    async def open(self, *names: str) -> None:
        for name in names:
            request = GenerationRequest(name, [1, 2], SamplingParams(10))
            stream = self.dispatcher.generate(request)
            self.tasks[name] = asyncio.create_task(read(stream))
        await asyncio.sleep(0)
        self.start(*names)

    def start(self, *names: str) -> None:
        slots = [self.slots.setdefault(name, len(self.slots)) for name in names]
        self.dispatcher.started(list(names), slots, [0] * len(names))

    def give(self, name: str, *tokens: int, finish: FinishReason | None = None) -> None:
        if finish is None:
            self.dispatcher.deliver([self.slots[name]] * len(tokens), list(tokens), [])
        else:
            self.dispatcher.deliver([], [], [GenerationDelta(name, list(tokens), len(tokens), 0, finish)])

    def restart(self) -> list[tuple[str, list[int]]]:
        self.dispatcher.crashed()
        self.sent.clear()
        self.dispatcher.restarted()
        self.dispatcher.lobby.resume()
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
        engine.start("a")
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
        engine.start("good")
        engine.give("good", 1)
        engine.start("bad")
        assert engine.restart() == [("later", [])]  # it has waited since the first crash
        with pytest.raises(ModelFailure, match="twice"):
            await engine.tasks["bad"]
        engine.give("later", 3, finish=FinishReason.EOS)
        assert engine.added()[1:] == [("good", [1])]
        engine.give("good", 2, finish=FinishReason.EOS)
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
        # The engine has never been told of the second one.
        assert [c.request_id for c in engine.sent if isinstance(c, Abort)] == ["first"]

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


def test_a_reader_that_is_late_gets_all_that_came_in_one_delta() -> None:
    async def scenario() -> None:
        engine = Engine()
        stream = engine.dispatcher.generate(GenerationRequest("a", [1, 2], SamplingParams(10)))
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        engine.dispatcher.started(["a"], [5], [1], [2])
        engine.dispatcher.deliver([5], [7], [])
        assert await first == GenerationDelta("a", [7], 1, 1, held=2)
        engine.dispatcher.deliver([5], [8], [])
        engine.dispatcher.deliver([5], [9], [])
        assert await anext(stream) == GenerationDelta("a", [8, 9], 3, 1, held=2)
        engine.dispatcher.deliver([5], [3], [])
        end = GenerationDelta("a", [4], 5, 1, FinishReason.LENGTH)
        engine.dispatcher.deliver([], [], [end])
        assert await anext(stream) == GenerationDelta("a", [3, 4], 5, 1, FinishReason.LENGTH)
        assert not engine.dispatcher.busy

    asyncio.run(scenario())


def test_tokens_come_before_the_failure_that_follows_them() -> None:
    async def scenario() -> None:
        engine = Engine()
        stream = engine.dispatcher.generate(GenerationRequest("a", [1, 2], SamplingParams(10)))
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        engine.dispatcher.started(["a"], [0], [0])
        engine.dispatcher.deliver([0], [7], [])
        engine.dispatcher.fail_all("gone")
        assert (await first).tokens == [7]
        with pytest.raises(EngineUnavailable, match="gone"):
            await anext(stream)

    asyncio.run(scenario())


def test_a_slot_that_changes_hands_never_brings_one_request_the_tokens_of_another() -> None:
    """Preempted and admitted elsewhere, abandoned while in a slot, abandoned while another has its slot."""

    async def scenario() -> None:
        engine = Engine()
        await engine.open("moved", "gone")
        engine.give("moved", 1)
        await engine.open("next")
        engine.dispatcher.started(["next"], [0], [0])
        engine.dispatcher.deliver([0, 1], [5, 6], [])
        engine.dispatcher.started(["moved"], [2], [0])
        engine.dispatcher.deliver([2], [2], [])
        engine.tasks["gone"].cancel()
        await asyncio.gather(engine.tasks["gone"], return_exceptions=True)
        engine.dispatcher.deliver([1, 0], [9, 7], [])
        engine.dispatcher.started(["gone"], [0], [0])  # the engine had not read of the abort yet
        engine.dispatcher.deliver([0], [9], [])
        for name, tokens in (("moved", [1, 2]), ("next", [5, 7])):
            engine.give(name, finish=FinishReason.EOS)
            assert await engine.tasks[name] == tokens

    asyncio.run(scenario())


def test_log_probabilities_come_with_their_tokens_and_no_others() -> None:
    async def scenario() -> None:
        engine = Engine()
        sampling = SamplingParams(10, logprobs=0)
        stream = engine.dispatcher.generate(GenerationRequest("a", [1, 2], sampling))
        told = [TokenLogprobs(-float(number), []) for number in range(4)]
        reader = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        engine.start("a")
        engine.dispatcher.deliver([], [], [GenerationDelta("a", [7], 1, logprobs=told[:1])])
        first = await reader
        assert (first.tokens, first.logprobs, first.finish) == ([7], told[:1], None)
        for index in (1, 2):
            delta = GenerationDelta("a", [7 + index], 1 + index, logprobs=[told[index]])
            engine.dispatcher.deliver([], [], [delta])
        assert engine.restart() == [("a", [7, 8, 9])]
        last = GenerationDelta("a", [10], 4, finish=FinishReason.LENGTH, logprobs=told[3:])
        engine.dispatcher.deliver([], [], [last])
        rest = await anext(stream)
        assert (rest.tokens, rest.logprobs, rest.finish) == ([8, 9, 10], told[1:], FinishReason.LENGTH)
        await stream.aclose()

    asyncio.run(scenario())
