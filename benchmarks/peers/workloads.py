"""What the peers are asked to do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load.completions import Request

_PLAIN_IDS = 1000, 49152
"""Ids of ordinary words in the demo model's vocabulary."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Calls that are made at once. prompts: the length of each prompt, in tokens. shared: how many tokens
    they all begin with, which a call before the measured ones has had computed."""

    name: str
    model: str
    title: str
    prompts: tuple[int, ...]
    max_tokens: int
    shared: int = 0

    def requests(self, seed: int) -> tuple[list[Request], list[Request]]:
        """The calls to make before, and those to measure. No two seeds have a prompt's beginning in
        common, so only `shared` can be found in a prefix cache."""
        generator = random.Random(f"{self.name} {seed}")

        def tokens(count: int) -> list[int]:
            return [generator.randrange(*_PLAIN_IDS) for _ in range(count)]

        prefix = tokens(self.shared)
        measured = [Request(prefix + tokens(n - self.shared), self.max_tokens) for n in self.prompts]
        return ([Request(prefix + tokens(8), 4)] if self.shared else []), measured


def _spread(low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(low + (high - low) * n // (count - 1) for n in range(count))


WORKLOADS: Sequence[Workload] = (
    Workload("single", "smollm2-135m", "1 call, 512 in / 128 out", (512,), 128),
    Workload("eight", "smollm2-135m", "8 calls, 128 / 128", (128,) * 8, 128),
    Workload("many", "smollm2-135m", "32 calls, 32 to 256 / 64", _spread(32, 256, 32), 64),
    Workload("prefix", "smollm2-135m", "16 calls, shared 1,500 + 50 / 64", (1550,) * 16, 64, shared=1500),
    Workload("1b-single", "llama-1b-shape", "1 call of 1B, 128 / 32", (128,), 32),
    Workload("1b-eight", "llama-1b-shape", "8 calls of 1B, 128 / 128", (128,) * 8, 128),
)

SMOKE = Workload("smoke", "smollm2-135m", "2 calls, 16 / 8", (16, 16), 8)
"""Measures nothing: shows within a minute whether every peer runs."""
