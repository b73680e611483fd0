"""How a server treats its requests, beyond which step comes next."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from outcrop.engine.policy import POLICIES, Policy, PrefillFirst


class Ahead(enum.StrEnum):
    """Which steps are submitted while the one before them runs; the device waits for the others."""

    ALL = "all"
    STEADY = "steady"  # decode steps of the same requests as the step before
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Serving:
    """policy: prompt or answers first. ahead: see Ahead. preempts: a request may be admitted although all that
    run could outgrow the KV cache, in which case one of them is computed again; else so many run as fit at
    their longest."""

    name: str
    policy: Policy
    ahead: Ahead = Ahead.ALL
    preempts: bool = True


VLLM_NEURON = Serving("vllm-neuron", PrefillFirst(), ahead=Ahead.STEADY, preempts=False)
"""What the vLLM Neuron plug-in documents (vllm-neuron/docs/design/vllm/neuron-scheduler.md and
async-scheduling-and-async-execution.md of aws-neuron-sdk, June 2026): one prompt at a time, before any answer,
while decodes are hidden, all of its chunks included; asynchronous steps lost whenever the batch's composition
changes; no preemption, so that only as many requests run as fit into the KV cache at the full context."""

SERVINGS: dict[str, Serving] = {
    **{name: Serving(name, policy) for name, policy in POLICIES.items()},
    VLLM_NEURON.name: VLLM_NEURON,
}


def find_serving(name: str) -> Serving:
    """Raises ValueError."""
    if name not in SERVINGS:
        raise ValueError(f"--policy {name}: there are {', '.join(SERVINGS)}")
    return SERVINGS[name]
