"""Outcrop on Ray Serve: does it scale, does it find prefixes, does a stream survive a replica's death?

    python -m benchmarks.scale_out.ray_serve [--rounds 3] [--only throughput]

Ray, its proxy, the API and 1, 2 and 4 engines on this machine, the engines with the fake backend, so that a
step takes a given time whatever else runs. Prints Markdown. `make ray` and `make serve`'s environment first.

Throughput: as many ConverseStream calls at once as the engines have rows, in rounds; output tokens a second.
Prefixes: conversations of several turns, each turn's prompt the whole conversation before it; the share of
prompt tokens served from prefix caches. Deaths: calls in progress while engines are killed with SIGKILL, one
after another; the answers against those of a run without.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from benchmarks.load.converse import Call, run_load
from benchmarks.load.ray_cluster import MODEL, SERVE, RayCluster, ray_cluster

ROWS = 4
STEP_MS = 200
TOKENS = 40
CALLS_PER_ROW = 2

SESSIONS, TURNS, AT_ONCE = 32, 6, 12
SHARED, SAID, ANSWERED = 64, 70, 16
"""Tokens: of the prompt that all conversations begin with, of what a user says in a turn, of an answer."""

KILLS = 3

POW2 = {"request_router_class": "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter"}
"""Ray's own choice: the shorter queue of two."""


def throughput(cluster: RayCluster, replicas: int, round_: int) -> float:
    """Output tokens a second of one round."""
    count = ROWS * replicas
    prompts = [f"Round {round_}, call {index}: hello." for index in range(CALLS_PER_ROW * count)]
    begun = time.perf_counter()
    calls = asyncio.run(run_load(cluster.url, MODEL, prompts, TOKENS, count))
    assert all(call.output_tokens == TOKENS for call in calls)
    return sum(call.output_tokens for call in calls) / (time.perf_counter() - begun)


async def conversations(url: str) -> None:
    """All conversations, some at once, their turns in order."""
    gate = asyncio.Semaphore(AT_ONCE)
    rng = random.Random(0)
    system = [rng.randrange(1000, 20_000) for _ in range(SHARED)]
    said = [
        [[rng.randrange(1000, 20_000) for _ in range(SAID)] for _ in range(TURNS)] for _ in range(SESSIONS)
    ]
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def converse(turns: Sequence[Sequence[int]]) -> None:
            context = list(system)
            for turn in turns:
                context += turn
                async with gate:  # others have their turns between two of one conversation
                    body = {
                        "model": MODEL, "prompt": context, "max_tokens": ANSWERED, "temperature": 0,
                        "ignore_eos": True, "return_token_ids": True,
                    }  # fmt: skip
                    answer = await http.post("/openai/v1/completions", json=body)
                    answer.raise_for_status()
                context += answer.json()["choices"][0]["token_ids"]

        await asyncio.gather(*map(converse, said))


def hit_rate(cluster: RayCluster) -> float:
    """Of the conversations, on a cluster that has not seen them."""
    asyncio.run(conversations(cluster.url))
    time.sleep(5)  # the API looks at its engines every other second
    return cluster.metric("vllm:prefix_cache_hits_total") / cluster.metric("vllm:prefix_cache_queries_total")


def undisturbed_and_killed(cluster: RayCluster, replicas: int) -> tuple[list[Call], list[Call]]:
    """The same calls twice, the second time with engines killed meanwhile."""
    count = ROWS * replicas
    prompts = [f"Tell me about the number {index}." for index in range(2 * count)]

    async def both() -> tuple[list[Call], list[Call]]:
        quiet = await run_load(cluster.url, MODEL, prompts, TOKENS, count)
        killing = asyncio.create_task(_kill(cluster))
        disturbed = await run_load(cluster.url, MODEL, prompts, TOKENS, count)
        await killing
        return quiet, disturbed

    return asyncio.run(both())


async def _kill(cluster: RayCluster) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(2.5)
        cluster.replicas()[0].kill()


def measure_throughput(rounds: int, counts: Sequence[int]) -> None:
    print(
        f"## Throughput\n\nSteps of {STEP_MS} ms, {ROWS} rows an engine, as many calls at once as there are "
        f"rows, {TOKENS} tokens an answer.\n\n"
        "| engines | output tokens/s, each round | median | times one engine |\n"
        "|---|---|---|---|"
    )
    base = 0.0
    for replicas in counts:
        with _cluster(replicas, fake_step_ms=STEP_MS) as cluster:
            throughput(cluster, replicas, 0)
            speeds = [throughput(cluster, replicas, number) for number in range(1, rounds + 1)]
        median = statistics.median(speeds)
        base = base or median
        each = ", ".join(f"{speed:.1f}" for speed in speeds)
        print(f"| {replicas} | {each} | {median:.1f} | {median / base:.2f} |", flush=True)


def measure_hit_rates() -> None:
    print(
        f"\n## Prefix cache\n\n{SESSIONS} conversations of {TURNS} turns, {AT_ONCE} calls at once.\n\n"
        "| engines | routing | hit rate | of one engine's |\n|---|---|---|---|"
    )
    base = 0.0
    for replicas, name, deployment in (
        (1, "-", {}),
        (4, "by prefix (default)", {}),
        (4, "Ray's default", {"request_router_config": POW2}),
    ):
        with _cluster(replicas, deployment, fake_step_ms=20, max_rows=16) as cluster:
            rate = hit_rate(cluster)
        base = base or rate
        print(f"| {replicas} | {name} | {rate:.1%} | {rate / base:.1%} |", flush=True)


def measure_deaths() -> None:
    with _cluster(4, fake_step_ms=STEP_MS) as cluster:
        quiet, disturbed = undisturbed_and_killed(cluster, 4)
    equal = sum(
        (a.text, a.input_tokens, a.output_tokens) == (b.text, b.input_tokens, b.output_tokens)
        for a, b in zip(quiet, disturbed, strict=True)
    )
    gap = max(later - earlier for call in disturbed for earlier, later in pairwise(call.chunks))
    print(
        f"\n## Engines killed\n\n{KILLS} of 4 engines' actors killed (SIGKILL), one after another, with "
        f"{4 * ROWS} calls in progress: {len(disturbed)} of {len(quiet)} calls answered, {equal} equal "
        f"to those of the undisturbed run; the longest pause in a stream was {gap:.1f} s."
    )


def _cluster(replicas: int, deployment: dict[str, Any] | None = None, **model: Any) -> Any:
    folder = Path(tempfile.mkdtemp(prefix="outcrop-ray-"))
    settings = {"max_rows": ROWS, "max_model_len": 2048} | model
    return ray_cluster(
        folder, replicas, model=settings, server={"auth": {"mode": "off"}}, deployment=deployment or {}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--only", choices=("throughput", "prefixes", "deaths"))
    arguments = parser.parse_args()
    version = next(SERVE.parents[1].glob("lib/python*/site-packages/ray-*.dist-info")).name[4:-10]
    print(
        f"# Ray Serve, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n"
        f"Ray {version}, Python {platform.python_version()}, {os.cpu_count()} processors, "
        f"load average {os.getloadavg()[0]:.1f} before.\n"
    )
    if arguments.only in (None, "throughput"):
        measure_throughput(arguments.rounds, arguments.engines)
    if arguments.only in (None, "prefixes"):
        measure_hit_rates()
    if arguments.only in (None, "deaths"):
        measure_deaths()
    print(f"\nLoad average after: {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
