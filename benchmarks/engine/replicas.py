"""What several engine processes of a model do together: throughput, prefix hits, and a kill in the middle.

    python benchmarks/engine/replicas.py

The fake backend, whose steps all take the same time, so what is measured is everything but a model: the
processes, their sockets, and the router (`outcrop.engine.router`). Prints Markdown tables."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable

from outcrop.engine.config import EngineConfig
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams
from outcrop.engine.prefix_keys import prefix_keys
from outcrop.engine.replicas import ReplicaSet
from outcrop.engine.router import Router

ROWS = 8
BLOCK = 32
TOKENS = 64
VOCABULARY = 32_000


async def started(count: int, step_ms: float) -> ReplicaSet:
    config = EngineConfig(
        model="", backend="fake", vocab_size=VOCABULARY, max_rows=ROWS, block_size=BLOCK, fake_step_ms=step_ms
    )
    engine = ReplicaSet([config] * count, block_size=BLOCK)
    await engine.start()
    while not all(each.ready for each in engine.replicas):
        await asyncio.sleep(0.01)
    return engine


async def ask(engine: ReplicaSet, name: str, prompt: list[int], tokens: int = TOKENS) -> list[int]:
    answer: list[int] = []
    async for delta in engine.generate(GenerationRequest(name, prompt, SamplingParams(tokens))):
        answer += delta.tokens
        assert delta.finish in (None, FinishReason.LENGTH)
    return answer


async def throughput(count: int, step_ms: float, requests: int) -> float:
    """Tokens a second, of twice as many clients as there are rows."""
    dice = random.Random(1)
    prompts = [dice.choices(range(VOCABULARY), k=100) for _ in range(requests * count)]
    engine = await started(count, step_ms)
    try:
        left = iter(enumerate(prompts))

        async def client() -> None:
            for number, prompt in left:
                await ask(engine, str(number), prompt)

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(2 * ROWS * count)))
        return len(prompts) * TOKENS / (time.monotonic() - began)
    finally:
        await engine.close()


async def hits(count: int, step_ms: float, talks: int) -> tuple[float, str]:
    """The share of prompt tokens that prefix caches serve, of conversations of five turns, half of them with
    one of four system prompts; and what decided where they went."""
    dice = random.Random(2)
    systems = [dice.choices(range(VOCABULARY), k=256) for _ in range(4)]
    engine = await started(count, step_ms)
    try:

        async def talk(number: int) -> None:
            own = random.Random(number)
            await asyncio.sleep(own.uniform(0, 3))
            prompt = own.choices(range(VOCABULARY), k=80)
            if number % 2:
                prompt = systems[number // 2 % 4] + prompt
            for turn in range(5):
                answer = await ask(engine, f"{number}-{turn}", prompt, 40)
                prompt = [*prompt, *answer, *own.choices(range(VOCABULARY), k=30)]
                await asyncio.sleep(own.uniform(0.1, 1.0))

        await asyncio.gather(*(talk(number) for number in range(talks)))
        stats, routing = engine.stats, engine.routing
        return stats.prefix_hits / stats.prefix_queries, f"{routing.prefix} prefix, {routing.load} load"
    finally:
        await engine.close()


async def killed(step_ms: float) -> tuple[int, int, int]:
    """Requests, how many went on elsewhere, and how many answers differ from an undisturbed run's."""
    dice = random.Random(3)
    prompts = [dice.choices(range(VOCABULARY), k=60) for _ in range(24)]

    async def answers(disturb: Callable[[ReplicaSet], Awaitable[None]] | None) -> tuple[list[list[int]], int]:
        engine = await started(2, step_ms)
        try:
            asked = [asyncio.create_task(ask(engine, str(n), each, 200)) for n, each in enumerate(prompts)]
            if disturb is not None:
                await disturb(engine)
            return [await each for each in asked], engine.routing.moved
        finally:
            await engine.close()

    async def kill(engine: ReplicaSet) -> None:
        while engine.replicas[0].stats.generation_tokens < 200:
            await asyncio.sleep(0.01)
        os.kill(engine.replicas[0].pid or 0, signal.SIGKILL)

    peace, _ = await answers(None)
    war, moved = await answers(kill)
    return len(prompts), moved, sum(one != other for one, other in zip(peace, war, strict=True))


def decisions(replicas: int, prompt: int) -> tuple[float, float]:
    """Microseconds of a request's keys, and of its choice, its start and its end."""
    dice = random.Random(4)
    router = Router(replicas, BLOCK)
    for replica in range(replicas):
        router.enter(replica, 2_000)
    prompts = [dice.choices(range(VOCABULARY), k=prompt) for _ in range(500)]
    for _ in range(8 * replicas):  # what else is in flight
        router.choose((), 500, 200)
    began = time.process_time()
    keys = [prefix_keys(each, "tenant", BLOCK) for each in prompts]
    hashed = time.process_time()
    for _ in range(4):  # the first time nobody holds them
        for each in keys:
            ticket = router.choose(each, prompt, 200)
            assert ticket is not None
            router.started(ticket, BLOCK * ticket.computed)
            router.release(ticket, 200)
    ended = time.process_time()
    count = len(prompts)
    return (hashed - began) / count * 1e6, (ended - hashed) / (4 * count) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step-ms", type=float, default=20.0, help="how long each step takes")
    parser.add_argument("--requests", type=int, default=40, help="of each replica")
    parser.add_argument("--talks", type=int, default=80)
    options = parser.parse_args()
    step_ms = options.step_ms
    print(f"Steps of {step_ms:g} ms, {ROWS} rows, {TOKENS} tokens an answer, {os.cpu_count()} processors\n")
    print("| replicas | tokens/s | of one | prefix hits | of one | decided by |\n|---|---|---|---|---|---|")
    first: tuple[float, float] | None = None
    for count in (1, 2, 4):
        print(f"{count} replicas", file=sys.stderr)
        rate = asyncio.run(throughput(count, step_ms, options.requests))
        share, decided = asyncio.run(hits(count, step_ms, options.talks))
        first = first or (rate, share)
        shares = f"{share:.1%} | {share / first[1]:.1%}"
        print(f"| {count} | {rate:.0f} | {rate / first[0]:.2f} | {shares} | {decided} |")
    print("killing one", file=sys.stderr)
    requests, moved, different = asyncio.run(killed(step_ms / 4))
    print(f"\nOne of two killed in the middle of {requests} answers: {moved} moved, {different} different.\n")
    print("| replicas | prompt | its keys, µs | choose, start, end, µs |\n|---|---|---|---|")
    for replicas in (2, 32, 1_000):
        for prompt in (200, 2_000, 8_000):
            hashing, choosing = decisions(replicas, prompt)
            print(f"| {replicas} | {prompt} | {hashing:.1f} | {choosing:.1f} |")


if __name__ == "__main__":
    main()
