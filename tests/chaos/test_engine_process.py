"""A real engine process under supervision: killed, stopped, poisoned, abandoned. Streams go on as if nothing
had happened, or end with a clear error; nothing hangs."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from fake_engines import CAPS, CONFIG, collect, request, run, until
from msgspec.structs import replace
from reference import answer

from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.engine.config import EngineConfig
from outcrop.engine.process_client import ProcessClient


@asynccontextmanager
async def engine(config: EngineConfig = CONFIG, **options: Any) -> AsyncIterator[ProcessClient]:
    client = ProcessClient(config, **options)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


def test_answers_come_from_another_process() -> None:
    async def scenario() -> None:
        async with engine() as client:
            assert client.pid != os.getpid()
            assert client.ready
            assert client.max_model_len == 512
            wanted = [request(f"r{index}") for index in range(12)]
            answers = await asyncio.gather(*(collect(client, each) for each in wanted))
            assert answers == [answer(each, CAPS) for each in wanted]
            assert client.stats.kv_blocks_used == 0

    run(scenario)


def test_streams_survive_two_kills_and_repeat_no_token() -> None:
    async def scenario() -> None:
        async with engine() as client:
            wanted = [request(f"r{index}", tokens=300) for index in range(6)]
            tasks = [asyncio.create_task(collect(client, each)) for each in wanted]
            for kill in range(2):
                produced = client.stats.generation_tokens if kill == 0 else 0
                await until(lambda: client.ready and client.stats.generation_tokens > produced + 60)  # noqa: B023
                assert client.pid is not None
                os.kill(client.pid, signal.SIGKILL)
                await until(lambda: client.restarts == kill + 1 and client.ready)  # noqa: B023
            answers = await asyncio.gather(*tasks)
            assert answers == [answer(each, CAPS) for each in wanted]

    run(scenario)


def test_a_request_that_crashes_the_engine_twice_is_refused_and_the_others_finish() -> None:
    async def scenario() -> None:
        async with engine(replace(CONFIG, fake_poison=5000)) as client:
            good = [request(f"good{index}", tokens=400) for index in range(3)]
            tasks = [asyncio.create_task(collect(client, each)) for each in good]
            await until(lambda: client.stats.generation_tokens > 30)
            with pytest.raises(ModelFailure, match="failed twice"):
                await collect(client, request("poison", prompt=[5, 5000, 5]))
            assert client.restarts == 2
            answers = await asyncio.gather(*tasks)
            assert answers == [answer(each, CAPS) for each in good]

    run(scenario)


def test_a_hung_engine_is_killed_and_its_streams_continue() -> None:
    async def scenario() -> None:
        async with engine(step_timeout=1.0) as client:
            wanted = request("slow", tokens=250)
            task = asyncio.create_task(collect(client, wanted))
            await until(lambda: client.stats.generation_tokens > 20)
            assert client.pid is not None
            os.kill(client.pid, signal.SIGSTOP)
            assert await task == answer(wanted, CAPS)
            assert client.restarts == 1

    run(scenario)


def test_an_abandoned_request_frees_its_blocks() -> None:
    async def scenario() -> None:
        async with engine() as client:
            stream = client.generate(request("gone", tokens=500))
            async for delta in stream:
                if delta.generated >= 5:
                    break
            assert client.stats.kv_blocks_used > 0
            await stream.aclose()
            await until(lambda: client.stats.kv_blocks_used == 0 and client.stats.running == 0)
            assert client.stats.generation_tokens < 40

    run(scenario)


def test_a_request_made_while_the_engine_restarts_waits_for_it() -> None:
    async def scenario() -> None:
        async with engine() as client:
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)
            await until(lambda: not client.ready)
            wanted = request("early")
            assert await collect(client, wanted) == answer(wanted, CAPS)

    run(scenario)


def test_an_engine_that_cannot_start_says_why() -> None:
    async def scenario() -> None:
        client = ProcessClient(replace(CONFIG, backend="cpu", model="/nonexistent/model"))
        with pytest.raises(EngineUnavailable, match="/nonexistent/model"):
            await client.start()
        with pytest.raises(EngineUnavailable, match="/nonexistent/model"):
            client.generate(request("a"))
        await client.close()

    run(scenario)


def test_closing_ends_the_process_and_fails_what_is_open() -> None:
    async def scenario() -> None:
        client = ProcessClient(CONFIG)
        await client.start()
        process = psutil.Process(client.pid)
        task = asyncio.create_task(collect(client, request("open", tokens=500)))
        await until(lambda: client.stats.generation_tokens > 5)
        await client.close()
        await client.close()
        with pytest.raises(EngineUnavailable, match="shutting down"):
            await task
        assert not process.is_running()

    run(scenario)


def test_the_engine_ends_with_its_parent() -> None:
    program = (
        "import asyncio, os\n"
        "from outcrop.engine.config import EngineConfig\n"
        "from outcrop.engine.process_client import ProcessClient\n"
        "async def main():\n"
        "    client = ProcessClient(EngineConfig(model='', backend='fake'))\n"
        "    await client.start()\n"
        "    print(client.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    engine_pid = int(done.stdout)
    if psutil.pid_exists(engine_pid):
        psutil.wait_procs([psutil.Process(engine_pid)], timeout=10)
    assert not psutil.pid_exists(engine_pid) or psutil.Process(engine_pid).status() == psutil.STATUS_ZOMBIE
