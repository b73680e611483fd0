"""What each scheduling policy costs: time to first token against time per output token.

Drives the real scheduler with the fake backend in virtual time, so the result is exact and repeatable:

    python benchmarks/engine/policies.py

A step takes 10 ms plus 0.1 ms for each token of its bucket, about what an 8B model does on one chip.
Requests arrive at random (Poisson) with 100 to 900 prompt tokens and ask for 20 to 300 tokens.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from dataclasses import dataclass, field

from outcrop.backends.base import Capabilities, StepInput
from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import POLICIES
from outcrop.percentile import percentile
from outcrop_compile.bucket import Bucket, StepKind


@dataclass
class VirtualClock:
    now: float = 0.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Life:
    arrival: float
    token_times: list[float] = field(default_factory=list)


def buckets(rows: int, blocks: int) -> tuple[Bucket, ...]:
    decode = [Bucket(StepKind.DECODE, n, 1, blocks) for n in (1, 4, 8, 16, rows)]
    return tuple(decode + [Bucket(StepKind.PREFILL, 1, width, blocks) for width in (128, 256, 512)])


def step_seconds(step: StepInput) -> float:
    return 0.010 + 0.0001 * step.bucket.rows * step.bucket.width


def simulate(policy: str, rate: float, count: int, seed: int) -> list[Life]:
    """Serve `count` requests arriving at `rate` per second; the times of every token."""
    rng, clock = random.Random(seed), VirtualClock()
    caps = Capabilities(
        max_rows=32,
        block_size=32,
        num_blocks=2048,
        max_model_len=2048,
        vocab_size=32000,
        topk_cap=256,
        depth=2,
    )
    backend = FakeBackend(caps, FakeHooks(step_seconds=step_seconds), clock=clock.read, sleep=clock.sleep)
    backend.buckets = buckets(caps.max_rows, 64)
    core = EngineCore(backend, POLICIES[policy], prefix_cache=False)
    lives: dict[str, Life] = {}
    arrivals: deque[tuple[float, GenerationRequest]] = deque()
    at = 0.0
    for index in range(count):
        at += rng.expovariate(rate)
        prompt = [rng.randrange(32000) for _ in range(rng.randrange(100, 900))]
        arrivals.append((at, GenerationRequest(str(index), prompt, SamplingParams(rng.randrange(20, 300)))))
    while arrivals or not core.idle:
        if core.idle:
            clock.now = max(clock.now, arrivals[0][0])
        while arrivals and arrivals[0][0] <= clock.now:
            arrival, request = arrivals.popleft()
            lives[request.request_id] = Life(arrival)
            core.add(request)
        for delta in core.step():
            lives[delta.request_id].token_times.append(clock.now)
    return list(lives.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0, 4.0, 6.0], help="requests a second")
    parser.add_argument("--count", type=int, default=300, help="requests per run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("| arrivals/s | policy | TTFT p50 ms | TTFT p99 ms | TPOT p50 ms | TPOT p99 ms | out tok/s |")
    print("|---|---|---|---|---|---|---|")
    for rate in options.rates:
        for policy in sorted(POLICIES):
            lives = simulate(policy, rate, options.count, options.seed)
            first = [1000 * (life.token_times[0] - life.arrival) for life in lives]
            each = [
                1000 * (life.token_times[-1] - life.token_times[0]) / (len(life.token_times) - 1)
                for life in lives
                if len(life.token_times) > 1
            ]
            tokens = sum(len(life.token_times) for life in lives)
            span = max(life.token_times[-1] for life in lives) - lives[0].arrival
            cells = [
                percentile(first, 0.5),
                percentile(first, 0.99),
                percentile(each, 0.5),
                percentile(each, 0.99),
            ]
            print(
                f"| {rate:g} | {policy} | "
                + " | ".join(f"{c:.0f}" for c in cells)
                + f" | {tokens / span:.0f} |"
            )


if __name__ == "__main__":
    main()
