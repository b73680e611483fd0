"""Several engine processes behind one handle: killed, poisoned, replaced while requests run. Every request
ends as it would have alone, whoever worked on it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
from fake_engines import BLOCK, CAPS, CONFIG, Answer, collect, request, run, until
from reference import answer

from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.engine.messages import GenerationRequest
from outcrop.engine.replicas import ReplicaSet


@asynccontextmanager
async def replicas(count: int = 2, **changes: Any) -> AsyncIterator[ReplicaSet]:
    """All of them ready."""
    engine = ReplicaSet([msgspec.structs.replace(CONFIG, **changes)] * count, block_size=BLOCK)
    try:
        await engine.start()
        await until(lambda: all(each.ready for each in engine.replicas))
        yield engine
    finally:
        await engine.close()


def kill(engine: ReplicaSet, replica: int) -> None:
    pid = engine.replicas[replica].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def busy(engine: ReplicaSet) -> bool:
    """Whether both replicas are in the middle of answers."""
    return all(each.stats.running and each.stats.generation_tokens > 40 for each in engine.replicas)


def test_a_killed_replica_loses_nothing_and_comes_back() -> None:
    async def scenario() -> None:
        async with replicas() as engine:
            wanted = [request(f"r{index}", tokens=300) for index in range(8)]
            tasks = [asyncio.create_task(collect(engine, each)) for each in wanted]
            await until(lambda: busy(engine))
            kill(engine, 1)
            await until(lambda: not engine.replicas[1].ready)
            assert engine.ready  # the other one is
            late = request("late")
            assert await collect(engine, late) == answer(late, CAPS)
            assert await asyncio.gather(*tasks) == [answer(each, CAPS) for each in wanted]
            # They did not wait for it.
            assert engine.routing.moved == 4
            await until(lambda: engine.replicas[1].ready)
            assert (engine.restarts, engine.replicas[1].restarts) == (1, 1)
            again = [request(f"again{index}", tokens=50) for index in range(4)]
            assert await asyncio.gather(*(collect(engine, each) for each in again)) == [
                answer(each, CAPS) for each in again
            ]
            assert all(each.stats.generation_tokens for each in engine.replicas)
            assert engine.stats.kv_blocks_used == 0
            assert engine.stats.kv_blocks_total == 2 * engine.replicas[0].stats.kv_blocks_total

    run(scenario)


@pytest.mark.slow
def test_requests_wait_while_no_replica_is_left_and_go_on() -> None:
    async def scenario() -> None:
        async with replicas() as engine:
            wanted = [request(f"r{index}", tokens=300) for index in range(4)]
            tasks = [asyncio.create_task(collect(engine, each)) for each in wanted]
            await until(lambda: busy(engine))
            for replica in (0, 1):
                kill(engine, replica)
            await until(lambda: not engine.ready)
            late = request("late")
            tasks.append(asyncio.create_task(collect(engine, late)))
            assert await asyncio.gather(*tasks) == [answer(each, CAPS) for each in (*wanted, late)]

    run(scenario)


def test_a_request_that_kills_two_replicas_is_refused_and_the_others_finish() -> None:
    async def scenario() -> None:
        async with replicas(fake_poison=5000) as engine:
            good = [request(f"good{index}", tokens=400) for index in range(6)]
            tasks = [asyncio.create_task(collect(engine, each)) for each in good]
            await until(lambda: busy(engine))
            with pytest.raises(ModelFailure, match="failed twice"):
                await collect(engine, request("poison", prompt=[5, 5000, 5]))
            assert engine.restarts == 2
            assert await asyncio.gather(*tasks) == [answer(each, CAPS) for each in good]

    run(scenario)


def test_conversations_and_sessions_stay_with_their_replica() -> None:
    async def scenario() -> None:
        async with replicas() as engine:
            for talk in range(4):
                prompt = [talk * 100 + token for token in range(3 * BLOCK)]
                for turn in range(3):
                    tokens, _ = await collect(engine, request(f"{talk}-{turn}", tokens=40, prompt=prompt))
                    prompt = [*prompt, *tokens, turn, turn]
            assert engine.routing.prefix == 8
            queried, hits = engine.stats.prefix_queries, engine.stats.prefix_hits
            # All but the first prompt of a conversation, but for what is not a whole block.
            assert hits > 0.5 * queried
            assert all(each.stats.prefix_hits for each in engine.replicas)
            for name in ("x", "y", "z"):
                wanted = msgspec.structs.replace(request(name, tokens=5), session="one")
                assert await collect(engine, wanted) == answer(wanted, CAPS)
            assert engine.routing.session == 2

    run(scenario)


@pytest.mark.parametrize(
    "in_place", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["beside", "in place"]
)
def test_an_update_under_load_fails_no_request(in_place: bool) -> None:
    """Requests come all the time, some longer than the update takes, while every replica is replaced."""

    async def scenario() -> None:
        async with replicas() as engine:
            before = [each.pid for each in engine.replicas]
            updated = asyncio.Event()
            served: list[tuple[GenerationRequest, Answer]] = []

            async def client(number: int) -> None:
                count = 0
                while not updated.is_set() or count < 2:
                    wanted = request(f"c{number}-{count}", tokens=60 if number else 300)
                    served.append((wanted, await collect(engine, wanted)))
                    count += 1

            clients = [asyncio.create_task(client(number)) for number in range(4)]
            await until(lambda: busy(engine))
            faster = msgspec.structs.replace(CONFIG, fake_step_ms=1)
            await engine.update([faster, faster], in_place=in_place)
            updated.set()
            await asyncio.gather(*clients)
            assert len(served) >= 8
            for wanted, got in served:
                assert got == answer(wanted, CAPS)
            assert not {each.pid for each in engine.replicas} & set(before)
            assert engine.configs == [faster, faster]
            assert engine.restarts == 0
            assert engine.replicas[0].stats.generation_tokens

    run(scenario)


@pytest.mark.slow
def test_an_old_replica_that_dies_while_it_finishes_answers_all_the_same() -> None:
    async def scenario() -> None:
        async with replicas(1) as engine:
            wanted = [request(f"r{index}", tokens=480) for index in range(3)]
            tasks = [asyncio.create_task(collect(engine, each)) for each in wanted]
            old = engine.replicas[0]
            await until(lambda: old.stats.generation_tokens > 30)
            update = asyncio.create_task(engine.update([msgspec.structs.replace(CONFIG, fake_step_ms=1)]))
            await until(lambda: engine.replicas[0] is not old)
            assert old.pid is not None
            os.kill(old.pid, signal.SIGKILL)
            assert await asyncio.gather(*tasks) == [answer(each, CAPS) for each in wanted]
            await update
            # Their tokens all came from the version that they began with.
            assert old.restarts == 1
            assert engine.stats.generation_tokens == 0

    run(scenario)


@pytest.mark.slow
def test_an_update_that_does_not_start_leaves_what_is_there() -> None:
    async def scenario() -> None:
        async with replicas(2) as engine:
            before = [each.pid for each in engine.replicas]
            broken = msgspec.structs.replace(CONFIG, backend="cpu", model="/nonexistent/model")
            with pytest.raises(EngineUnavailable, match="/nonexistent/model"):
                await engine.update([broken, broken])
            assert [each.pid for each in engine.replicas] == before
            with pytest.raises(EngineUnavailable, match="/nonexistent/model"):
                await engine.update([broken, broken], in_place=True)
            await until(lambda: all(each.ready for each in engine.replicas))
            assert engine.configs == [CONFIG, CONFIG]
            wanted = request("still")
            assert await collect(engine, wanted) == answer(wanted, CAPS)

    run(scenario)


def test_the_only_replica_is_not_ended_before_there_is_another() -> None:
    async def scenario() -> None:
        async with replicas(1) as engine:
            with pytest.raises(EngineUnavailable, match="the only one that serves"):
                await engine.update([CONFIG], in_place=True)
            assert engine.ready

    run(scenario)


def test_replicas_that_cannot_be_had() -> None:
    async def scenario() -> None:
        engine = ReplicaSet([msgspec.structs.replace(CONFIG, backend="cpu", model="/nonexistent/model")] * 2)
        with pytest.raises(EngineUnavailable, match="/nonexistent/model"):
            await engine.start()
        with pytest.raises(EngineUnavailable, match="/nonexistent/model"):
            engine.generate(request("a"))
        assert "/nonexistent/model" in await engine.given_up()
        await engine.close()

    run(scenario)


def test_a_set_is_given_up_with_its_last_replica() -> None:
    async def scenario() -> None:
        async with replicas() as engine:
            task = asyncio.create_task(collect(engine, request("open", tokens=500)))
            await until(lambda: engine.stats.generation_tokens > 5)

            async def keep_killing() -> None:
                while True:
                    for each in engine.replicas:
                        with suppress(ProcessLookupError):
                            os.kill(each.pid or 0, signal.SIGKILL) if each.pid else None
                    await asyncio.sleep(0.02)

            killer = asyncio.create_task(keep_killing())
            reason = await engine.given_up()
            killer.cancel()
            assert "3 times in a row" in reason
            assert engine.drained == ""
            with pytest.raises((EngineUnavailable, ModelFailure)):
                await task

    run(scenario)


def test_closing_ends_every_process_and_fails_what_is_open() -> None:
    async def scenario() -> None:
        async with replicas() as engine:
            tasks = [asyncio.create_task(collect(engine, request(f"r{i}", tokens=500))) for i in range(3)]
            await until(lambda: engine.stats.generation_tokens > 5)
            await engine.close()
            for task in tasks:
                with pytest.raises(EngineUnavailable, match="shutting down"):
                    await task
            for each in engine.replicas:
                with pytest.raises(ProcessLookupError):
                    os.kill(each.pid or 0, 0)

    run(scenario)
