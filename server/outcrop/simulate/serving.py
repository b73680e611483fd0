"""How a server treats its requests, beyond which step comes next."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.engine.buckets import BucketTable
from outcrop.engine.policy import POLICIES, Policy, PrefillFirst
from outcrop_compile.bucket import Bucket, StepKind


class Ahead(enum.StrEnum):
    """Which steps are submitted while the one before them runs; the device waits for the others."""

    ALL = "all"
    STEADY = "steady"  # decode steps of the same requests as the step before
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Serving:
    """policy: prompt or answers first. ahead: see Ahead. preempts: a request may be admitted although all
    that run could outgrow the KV cache, in which case one of them is computed again; else so many run as fit
    at their longest. doubling: prompts are computed in buckets of every power of two tokens from 128, each
    chunk padded to the next, and not in Outcrop's few, filled as well as it goes."""

    name: str
    policy: Policy
    ahead: Ahead = Ahead.ALL
    preempts: bool = True
    doubling: bool = False

    def buckets(self, planned: Sequence[Bucket]) -> tuple[Bucket, ...]:
        """The shapes that it has compiled, where these are Outcrop's."""
        if not self.doubling:
            return tuple(planned)
        found: dict[Bucket, None] = {}
        for bucket in planned:
            found[bucket] = None
            width = bucket.width // 2
            while bucket.kind is StepKind.PREFILL and width >= _NARROWEST:
                found[Bucket(bucket.kind, bucket.rows, width, bucket.blocks)] = None
                width //= 2
        return tuple(found)

    def table(self, buckets: Sequence[Bucket]) -> BucketTable:
        return _PaddedTable(buckets) if self.doubling else BucketTable(buckets)


_NARROWEST = 128  # tokens


class _PaddedTable(BucketTable):
    """Each step takes as much of a prompt as the widest bucket holds."""

    def chunk(self, left: int) -> int:
        return min(left, self.max_width(StepKind.PREFILL))


VLLM_NEURON = Serving("vllm-neuron", PrefillFirst(), ahead=Ahead.STEADY, preempts=False, doubling=True)
"""What the vLLM Neuron plug-in documents (vllm-neuron/docs/design/vllm/neuron-scheduler.md and
async-scheduling-and-async-execution.md of aws-neuron-sdk, June 2026): one prompt at a time, before any
answer, while decodes are hidden, all of its chunks included; asynchronous steps lost whenever the batch's
composition changes; no preemption, so that only as many requests run as fit into the KV cache at the full
context; prefill buckets of powers of two from 128."""

SERVINGS: dict[str, Serving] = {
    **{name: Serving(name, policy) for name, policy in POLICIES.items()},
    VLLM_NEURON.name: VLLM_NEURON,
}


def find_serving(name: str) -> Serving:
    """Raises ValueError."""
    if name not in SERVINGS:
        raise ValueError(f"--policy {name}: there are {', '.join(SERVINGS)}")
    return SERVINGS[name]
