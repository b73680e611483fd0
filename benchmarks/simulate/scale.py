"""The router of replicas at the scale of a fleet, in virtual time.

    python benchmarks/simulate/scale.py

The decisions are `outcrop.engine.router`'s own, and their time is measured. A replica is simpler than in
`outcrop simulate`, so that thousands can be had: prompts are computed one after another, answers in rows,
with the step times of the simulator's model of Llama 3.1 8B on a third of an inf2.48xlarge (tp 8); its
prefix cache keeps what was used last. Prints Markdown tables."""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from outcrop.engine.holdings import Holdings
from outcrop.engine.prefix_keys import prefix_keys
from outcrop.engine.router import Router, Ticket
from outcrop.simulate.machine import make_machine
from outcrop.simulate.serving import SERVINGS
from outcrop.simulate.step_time import step_model
from outcrop_compile.bucket import StepKind
from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan import PlanRequest
from outcrop_compile.shapes import find_shape

BLOCK = 32
CACHED_SHARE = 0.8
"""Of a replica's KV memory, what is not taken by answers in progress."""


@dataclass(frozen=True)
class Speed:
    """Of a replica. prefill: seconds a token. decode: seconds a token of each answer. blocks: of KV
    memory."""

    prefill: float
    decode: float
    rows: int
    blocks: int


def speed() -> Speed:
    shape = find_shape("Llama-3.1-8B")
    assert shape is not None
    request = PlanRequest(shape.name, shape.config, INSTANCES["inf2.48xlarge"], tp=8, batch=32)
    machine = make_machine(request, SERVINGS["paced"], step_model())
    seconds = {bucket: duration / 1e9 for bucket, duration in machine.durations.items()}
    prefill = min(
        taken / (bucket.rows * bucket.width)
        for bucket, taken in seconds.items()
        if bucket.kind is StepKind.PREFILL
    )
    decode = min(
        taken for bucket, taken in seconds.items() if bucket.kind is StepKind.DECODE and bucket.rows == 32
    )
    return Speed(prefill, decode, 32, machine.capabilities.num_blocks)


@dataclass(slots=True)
class Call:
    """app: whose instructions its prompt begins with, -1 for nobody's. talk: the conversation."""

    talk: int
    app: int
    instructions: int
    prompt: int
    answer: int
    turns_left: int


class Load:
    """Calls of conversations. Half of them begin with the instructions of one of `apps` applications, whose
    popularity is Zipf's."""

    def __init__(self, seed: int, apps: int, make: Callable[[random.Random, int, int], Call]) -> None:
        self.dice = random.Random(seed)
        self._make = make
        self._lengths = [32 * self.dice.randint(4, 32) for _ in range(apps)]
        self._weights = [1 / (rank + 1) for rank in range(apps)]
        self._talks = 0
        self._drawn: Iterator[int] = iter(())

    def first(self) -> Call:
        app = next(self._drawn, None)
        if app is None:
            self._drawn = iter(self.dice.choices(range(len(self._weights)), self._weights, k=10_000))
            app = next(self._drawn)
        self._talks += 1
        call = self._make(self.dice, self._talks, self._lengths[app])
        call.app = app if call.instructions else -1
        return call

    def next_turn(self, call: Call) -> Call:
        """The history, the answer, and some more words."""
        dice = self.dice
        prompt = call.prompt + call.answer + dice.randint(20, 100)
        answer = min(1000, round(dice.lognormvariate(5.2, 0.7)))
        return Call(call.talk, call.app, call.instructions, prompt, answer, call.turns_left - 1)


def chat(dice: random.Random, talk: int, instructions: int) -> Call:
    own = round(min(4000, dice.lognormvariate(5.5, 0.9)))
    length = instructions if dice.random() < 0.5 else 0
    answer = min(1000, round(dice.lognormvariate(5.2, 0.7)))
    turns = min(12, int(dice.expovariate(1 / 4)))
    return Call(talk, -1, length, length + own + 1, answer, turns)


def classify(dice: random.Random, talk: int, instructions: int) -> Call:
    return Call(talk, -1, instructions, instructions + dice.randint(32, 96), 4, 0)


@dataclass
class Figures:
    calls: int = 0
    tokens: int = 0
    hits: int = 0
    possible: int = 0
    router_seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    lead: float = 0.0


class Fleet:
    """replicas: of all routers together, each of which has an equal share; a call goes to the router of its
    application or its conversation. grain: blocks that a router's key stands for. policy: router; session,
    which knows nothing of prompts; least, which knows loads alone."""

    def __init__(
        self, speed: Speed, replicas: int, *, routers: int = 1, grain: int = 1, policy: str = "router"
    ):
        self.speed = speed
        self.policy = policy
        self.grain = grain
        self.share = replicas // routers
        tokens = BLOCK * grain
        self.routers = [Router(self.share, tokens) for _ in range(routers)]
        for router in self.routers:
            for replica in range(self.share):
                router.enter(replica, speed.blocks // grain)
        self.caches = Holdings(replicas)
        for replica in range(replicas):
            self.caches.set_room(replica, int(speed.blocks * CACHED_SHARE))
        self.prefill_free = [0.0] * replicas
        self.rows: list[list[float]] = [[] for _ in range(replicas)]
        self.figures = Figures()
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self._seen: dict[tuple[int, int], int] = {}
        self._count = 0

    def at(self, when: float, what: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self.events, (when, self._count, what))

    def keys(self, call: Call, tokens: int, length: int) -> list[int]:
        """As `prefix_keys`, of tokens that nobody has written down. length: tokens of prompt and answer."""
        shared = call.instructions // tokens
        return [
            hash((tokens, -1 - call.app, index)) if index < shared else hash((tokens, call.talk, index))
            for index in range(length // tokens)
        ]

    def serve(self, call: Call, now: float, then: Callable[[Call, float], None]) -> None:
        number = hash((call.app, "app")) if call.app >= 0 else call.talk
        shard = number % len(self.routers)
        router, coarse = self.routers[shard], BLOCK * self.grain
        keys = self.keys(call, coarse, call.prompt) if self.policy == "router" else []
        began = time.process_time()
        ticket = router.choose(
            keys, call.prompt, 1024, session=call.talk if self.policy == "session" else None
        )
        self.figures.router_seconds += time.process_time() - began
        assert ticket is not None
        replica = shard * self.share + ticket.replica
        blocks = self.keys(call, BLOCK, call.prompt)
        # As a replica's own cache, which always computes the last token.
        cached = min(self.caches.held(replica, blocks)[1] * BLOCK, (call.prompt - 1) // BLOCK * BLOCK)
        self.caches.compute(replica, blocks)
        rows = self.rows[replica]
        start = max(now, heapq.heappop(rows)) if len(rows) == self.speed.rows else now
        first = max(start, self.prefill_free[replica]) + (call.prompt - cached) * self.speed.prefill
        self.prefill_free[replica] = first
        # Prompts of others take their share of the time.
        end = first + call.answer * self.speed.decode * 1.3
        heapq.heappush(rows, end)
        self._note(call, cached, first - now)
        self.at(start, lambda when: self._started(router, ticket, cached))
        self.at(end, lambda when: self._ended(router, replica, ticket, call, when, then))

    def _note(self, call: Call, cached: int, first: float) -> None:
        """possible: what one cache without end would have served."""
        figures, seen = self.figures, self._seen
        known = max(
            seen.get((0, call.talk), 0),
            min(call.instructions, seen.get((1, call.app), 0)) if call.app >= 0 else 0,
        )
        figures.possible += min(known, call.prompt - 1) // BLOCK * BLOCK
        seen[0, call.talk] = call.prompt + call.answer
        if call.app >= 0:
            seen[1, call.app] = call.instructions
        figures.calls += 1
        figures.tokens += call.prompt
        figures.hits += cached
        figures.first.append(first)

    def _started(self, router: Router, ticket: Ticket, cached: int) -> None:
        began = time.process_time()
        router.started(ticket, cached)
        self.figures.router_seconds += time.process_time() - began

    def _ended(
        self,
        router: Router,
        replica: int,
        ticket: Ticket,
        call: Call,
        now: float,
        then: Callable[[Call, float], None],
    ) -> None:
        whole = call.prompt + call.answer
        self.caches.compute(replica, self.keys(call, BLOCK, whole))
        more = self.keys(call, BLOCK * self.grain, whole)[len(ticket.keys) :] if ticket.keys else []
        began = time.process_time()
        router.release(ticket, call.answer, more)
        self.figures.router_seconds += time.process_time() - began
        then(call, now)

    def run(self, load: Load, rate: float, seconds: float) -> Figures:
        """rate: of conversations. Figures are of the second half."""
        dice = random.Random(7)

        def then(call: Call, now: float) -> None:
            if call.turns_left > 0:
                later = load.next_turn(call)
                self.at(now + dice.expovariate(1 / 15), lambda when: self.serve(later, when, then))

        def arrive(now: float) -> None:
            self.at(now + dice.expovariate(rate), arrive)
            self.serve(load.first(), now, then)

        self.at(0.0, arrive)
        halfway = False
        while self.events and self.events[0][0] < seconds:
            now, _, what = heapq.heappop(self.events)
            if not halfway and now > seconds / 2:
                halfway, self.figures = True, Figures()
            what(now)
        loads = [router.load(replica) for router in self.routers for replica in range(self.share)]
        self.figures.lead = max(loads) / (sum(loads) / len(loads))
        return self.figures


def row(name: str, figures: Figures, seconds: float) -> str:
    first = sorted(figures.first)
    p50, p99 = (first[int(len(first) * share)] * 1e3 for share in (0.5, 0.99))
    return (
        f"| {name} | {figures.calls / (seconds / 2):,.0f} | {figures.hits / figures.tokens:.1%} | "
        f"{figures.hits / max(1, figures.possible):.1%} | {p50:,.0f} / {p99:,.0f} | {figures.lead:.2f} | "
        f"{figures.router_seconds / figures.calls * 1e6:.0f} |"
    )


def bytes_a_block() -> float:
    """Of a router's memory, for each block that it believes a replica to hold."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    holdings = Holdings(20)
    for replica in range(20):
        holdings.set_room(replica, 4_000)
        holdings.compute(replica, [hash((replica, index)) for index in range(4_000)])
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / (20 * 4_000)


def hashing(prompt: int) -> float:
    """Microseconds that the keys of a prompt take."""
    tokens = random.Random(1).choices(range(100_000), k=prompt)
    began = time.process_time()
    for _ in range(200):
        prefix_keys(tokens, "tenant", BLOCK)
    return (time.process_time() - began) / 200 * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--chat", type=float, default=1000.0, help="conversations a second")
    parser.add_argument("--short", type=float, default=50_000.0, help="short requests a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of virtual time, of conversations")
    parser.add_argument("--short-seconds", type=float, default=3.0)
    options = parser.parse_args()
    found, replicas = speed(), options.replicas
    print(
        f"A replica: {1 / found.prefill:,.0f} prompt tokens/s, {found.decode * 1e3:.1f} ms a step of "
        f"{found.rows} rows, {found.blocks * BLOCK:,} tokens of KV.\n"
    )
    head = (
        "| routing | requests/s | prompt tokens cached | of what could be | TTFT p50 / p99 ms | "
        "busiest / mean | router µs |"
    )
    variants: Sequence[tuple[str, dict[str, object]]] = (
        ("router", {}),
        ("router, keys of 4 blocks", {"grain": 4}),
        ("8 routers, an eighth of the replicas each", {"routers": 8}),
        ("sessions and load", {"policy": "session"}),
        ("load alone", {"policy": "least"}),
    )
    for title, make, rate, seconds in (
        ("Conversations", chat, options.chat, options.seconds),
        ("Short requests", classify, options.short, options.short_seconds),
    ):
        print(f"{title}, {replicas} replicas\n\n{head}\n|---|---|---|---|---|---|---|")
        for name, how in variants:
            print(f"{title}: {name}", file=sys.stderr)
            fleet = Fleet(found, replicas, **how)  # type: ignore[arg-type]
            print(row(name, fleet.run(Load(1, 2_000, make), rate, seconds), seconds), flush=True)
        print()
    size = bytes_a_block()
    print(
        f"A router's memory: {size:.0f} bytes for each block of each replica, "
        f"{size * found.blocks * replicas / 2**30:.1f} GiB when full, a quarter of it with keys of 4 blocks. "
        f"Keys of a prompt: {hashing(256):.0f} µs for 256 tokens, {hashing(2000):.0f} µs for 2,000."
    )


if __name__ == "__main__":
    main()
