"""All replicas of an instance under a load."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from outcrop.engine.stats import EngineStats
from outcrop.simulate.lives import Lives
from outcrop.simulate.machine import Machine
from outcrop.simulate.replica import Replica, Usage
from outcrop.simulate.trace import NS, ClosedLoop, Trace

Progress = Callable[[float], None]
"""Called with the fraction of requests that were sent."""

_FOREVER = 1 << 62
_EVERY = 1000
"""Requests between two calls of Progress."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was simulated, and what came of it. end: nanoseconds, when the last replica had nothing left."""

    machine: Machine
    lives: Lives
    usage: tuple[Usage, ...]
    stats: tuple[EngineStats, ...]
    end: int

    def used(self, name: str) -> int:
        """A figure of Usage, over all replicas."""
        return sum(getattr(each, name) for each in self.usage)

    def counted(self, name: str) -> int:
        """A figure of EngineStats, over all replicas."""
        return sum(getattr(each, name) for each in self.stats)


def simulate(
    machine: Machine,
    load: Trace | ClosedLoop,
    *,
    leaping: bool = True,
    progress: Progress = lambda fraction: None,
) -> Run:
    """Serve all of a load. Requests of an open loop go to the replica with the least tokens in flight, as a
    balancer that knows these would send them; users of a closed loop each stay with one replica."""
    trace = load if isinstance(load, Trace) else load.requests
    lives = Lives(trace)
    replicas = [Replica(machine, lives, leaping=leaping) for _ in range(machine.replicas)]
    if isinstance(load, Trace):
        _open(replicas, load, progress)
    else:
        _closed(replicas, load, round(machine.host.request * NS), progress)
    progress(1.0)
    return Run(
        machine,
        lives,
        tuple(replica.usage for replica in replicas),
        tuple(replica.scheduler.stats() for replica in replicas),
        max(replica.now for replica in replicas),
    )


def _open(replicas: list[Replica], trace: Trace, progress: Progress) -> None:
    weights = (trace.prompt + trace.output).tolist()
    in_flight = [0] * len(replicas)
    ends: list[tuple[int, int, int]] = []  # when, at which replica, of how many tokens
    for index, now in enumerate(trace.arrival.tolist()):
        for number, replica in enumerate(replicas):
            replica.run_until(now)
            for ended in replica.ended:
                heapq.heappush(ends, (int(replica.lives.last[ended]), number, weights[ended]))
            replica.ended.clear()
        while ends and ends[0][0] <= now:
            _, number, weight = heapq.heappop(ends)
            in_flight[number] -= weight
        chosen = min(range(len(replicas)), key=in_flight.__getitem__)
        in_flight[chosen] += weights[index]
        replicas[chosen].add(index, now)
        if index % _EVERY == 0:
            progress(index / len(weights))
    for replica in replicas:
        replica.run_until(_FOREVER)


def _closed(replicas: list[Replica], load: ClosedLoop, overhead: int, progress: Progress) -> None:
    count = len(load.requests)
    used = replicas[: min(len(replicas), load.users)]
    for number, replica in enumerate(used):
        users = len(range(number, load.users, len(used)))
        mine = range(number, count, len(used))
        _serve_users(replica, mine, users, load.think + overhead, progress)


def _serve_users(
    replica: Replica, requests: Iterable[int], users: int, pause: int, progress: Progress
) -> None:
    left = iter(requests)
    sends = [0] * users  # a heap of times
    while True:
        replica.run_until(sends[0] if sends else _FOREVER, stop_at_end=True)
        if replica.ended:
            for _ in replica.ended:
                heapq.heappush(sends, replica.now + pause)
            replica.ended.clear()
            continue
        index = next(left, None) if sends else None
        if index is None:
            replica.run_until(_FOREVER)
            return
        replica.add(index, heapq.heappop(sends))
        if index % _EVERY == 0:
            progress(index / len(replica.lives.trace))
