"""Prompt or answers first: the one trade a scheduler of unmixed steps has to make.

The chip runs prefill and decode as different programs, so every step is one or the other. Prefill first
starts answers sooner (time to first token); decode first keeps running answers smooth (time per output
token). `benchmarks/engine/policies.py` shows what each costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from outcrop.engine.config import BackendName, PolicyName
from outcrop_compile.bucket import StepKind


@dataclass(frozen=True, slots=True)
class QueueView:
    """What a policy may look at. prefillable: requests with prompt tokens left to compute, waiting ones
    included. decodable: requests with a next token to compute. prefills_in_a_row: prefill steps since
    the last decode step; decodes_in_a_row: the reverse. prefilled: tokens that those prefill steps had room
    for, which is what they cost."""

    prefillable: int
    decodable: int
    prefills_in_a_row: int
    decodes_in_a_row: int
    prefilled: int = 0


class Policy(Protocol):
    def choose(self, view: QueueView) -> StepKind:
        """The kind to try first; the scheduler falls back to the other when it yields no step."""


class PrefillFirst:
    """Every prompt before any answer: the soonest first tokens, at the price of stalls in running answers."""

    def choose(self, view: QueueView) -> StepKind:
        return StepKind.PREFILL if view.prefillable else StepKind.DECODE


@dataclass(frozen=True, slots=True)
class Interleave:
    """At most `prefills` prefill steps between two decode steps: neither side starves."""

    prefills: int = 1

    def choose(self, view: QueueView) -> StepKind:
        if not view.decodable:
            return StepKind.PREFILL
        if not view.prefillable or view.prefills_in_a_row >= self.prefills:
            return StepKind.DECODE
        return StepKind.PREFILL


@dataclass(frozen=True, slots=True)
class Paced:
    """Prefill steps of `tokens` between two decode steps, and no more than it takes to get there: many short
    prompts, or one chunk of a long one. So short prompts need not wait for a decode step each, and no token
    of an answer waits for longer than a chunk of the widest bucket beyond `tokens`."""

    tokens: int = 1024

    def choose(self, view: QueueView) -> StepKind:
        if not view.decodable:
            return StepKind.PREFILL
        if not view.prefillable or view.prefilled >= self.tokens:
            return StepKind.DECODE
        return StepKind.PREFILL


@dataclass(frozen=True, slots=True)
class DecodeFirst:
    """One prefill step after every `decodes` decode steps: the smoothest answers, and a longer queue."""

    decodes: int = 8

    def choose(self, view: QueueView) -> StepKind:
        if not view.decodable or (view.prefillable and view.decodes_in_a_row >= self.decodes):
            return StepKind.PREFILL
        return StepKind.DECODE


POLICIES: dict[PolicyName, Policy] = {
    "interleave": Interleave(),
    "paced": Paced(),
    "prefill-first": PrefillFirst(),
    "decode-first": DecodeFirst(),
}


def policy_for(name: PolicyName, backend: BackendName) -> Policy:
    """The policy of that name; "auto" is what suits the backend."""
    if name == "auto":
        name = "paced" if backend == "neuron" else "interleave"
    return POLICIES[name]
