"""What clients ask for: how many tokens in and out, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

NS = 1_000_000_000
"""Nanoseconds of a second: virtual time is counted in whole ones, so that sums are exact in any order."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival. arrival: [N] nanoseconds from the start, never falling. prompt, output:
    [N] tokens, at least one of each. skipped: rows of a file that were left out, by reason."""

    name: str
    arrival: Counts
    prompt: Counts
    output: Counts
    skipped: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def rate(self) -> float:
        """Requests a second, on average."""
        span = int(self.arrival[-1] - self.arrival[0]) if len(self) > 1 else 0
        return (len(self) - 1) * NS / span if span else 0.0


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`users` who each send their next request `think` nanoseconds after the answer to the one before, until
    all of `requests` were sent. Times of arrival in it are not looked at."""

    requests: Trace
    users: int
    think: int = 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of prompts and answers, each distributed log-normally about a median, so that a few are long.
    spread: of the logarithm; 0 makes all alike. shortest, longest: bounds of both."""

    prompt: int
    output: int
    prompt_spread: float = 0.0
    output_spread: float = 0.0
    longest: int = 1 << 20

    def __post_init__(self) -> None:
        for name in ("prompt", "output"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)} tokens; it has to be at least 1")
        for name in ("prompt_spread", "output_spread"):
            if not 0 <= getattr(self, name) <= 4:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a spread from 0 to 4")

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Counts, Counts]:
        """[count] prompts and [count] answers."""
        return (
            self._draw(rng, count, self.prompt, self.prompt_spread),
            self._draw(rng, count, self.output, self.output_spread),
        )

    def _draw(self, rng: np.random.Generator, count: int, middle: int, spread: float) -> Counts:
        drawn = np.rint(middle * np.exp(spread * rng.standard_normal(count)))
        bounded: Counts = np.clip(drawn, 1, self.longest).astype(np.int64)
        return bounded


def poisson(rate: float, count: int, lengths: Lengths, seed: int, *, burstiness: float = 1.0) -> Trace:
    """Requests that arrive at random, `rate` a second on average.

    burstiness: 1 for a Poisson process; below it, gaps are drawn from a gamma distribution of that shape, so
    that requests come in bursts with lulls between (as vLLM's and aiperf's option of that name); above it,
    more regularly. Raises ValueError."""
    if not 0 < rate < math.inf:
        raise ValueError(f"the rate is {rate} requests a second; it has to be above 0")
    if not 0 < burstiness < math.inf:
        raise ValueError(f"the burstiness is {burstiness}; it has to be above 0")
    if count < 1:
        raise ValueError(f"{count} requests; there has to be one at least")
    rng = np.random.default_rng(seed)
    gaps = rng.gamma(burstiness, 1 / (rate * burstiness), count)
    prompt, output = lengths.draw(rng, count)
    arrival = np.cumsum(np.rint(gaps * NS).astype(np.int64))
    return Trace("poisson" if burstiness == 1 else "bursty", arrival, prompt, output)


def closed_loop(users: int, count: int, lengths: Lengths, seed: int, *, think: float = 0.0) -> ClosedLoop:
    """think: seconds. Raises ValueError."""
    if users < 1:
        raise ValueError(f"{users} users; there has to be one at least")
    if not 0 <= think < math.inf:
        raise ValueError(f"a think time of {think} s; it has to be 0 or more")
    if count < 1:
        raise ValueError(f"{count} requests; there has to be one at least")
    prompt, output = lengths.draw(np.random.default_rng(seed), count)
    requests = Trace("closed loop", np.zeros(count, dtype=np.int64), prompt, output)
    return ClosedLoop(requests, users, round(think * NS))
