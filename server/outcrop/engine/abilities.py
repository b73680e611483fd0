"""What each kind of engine can do, and what asks for it: the one place that says so.

A request that asks for more is refused by name (`lacking`), before the engine sees it. Everything else of a
request (maximum tokens, temperature, top-p and top-k, end tokens, stop sequences) every engine does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec.structs import astuple

from outcrop.engine.messages import BACKGROUND, SamplingParams


class Abilities(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an engine can do for a request.

    grammar: hold an answer to a grammar. logprobs: how many likeliest tokens a request may ask for beside
    each of its tokens; None where log probabilities are not told at all. seed: draw the same tokens for the
    same seed. priority: run one request before another. prefix_cache: keep the KV of prompts for later ones,
    and tell how much of it a request used; without it `cached` is 0 and nothing is refused, for it promises
    speed alone. speculation: guess at an answer's tokens, which no request asks for. adapters: the names of
    the LoRA adapters that requests may name.
    """

    grammar: bool = False
    logprobs: int | None = None
    seed: bool = False
    min_p: bool = False
    repetition_penalty: bool = False
    presence_penalty: bool = False
    frequency_penalty: bool = False
    logit_bias: bool = False
    priority: bool = False
    prefix_cache: bool = False
    speculation: bool = False
    adapters: tuple[str, ...] = ()


EngineKind = Literal["outcrop", "vllm", "vllm-neuron", "optimum-neuron"]

_EVERYTHING = Abilities(
    grammar=True,
    logprobs=20,
    seed=True,
    min_p=True,
    repetition_penalty=True,
    presence_penalty=True,
    frequency_penalty=True,
    logit_bias=True,
    priority=True,
    prefix_cache=True,
    speculation=True,
)

ABILITIES: Mapping[EngineKind, Abilities] = {
    # Its backends tell log probabilities or not: `Capabilities.logprobs`.
    "outcrop": _EVERYTHING,
    "vllm": _EVERYTHING,
    # vllm-neuron 0.4.1 samples on the device by temperature, top-k and top-p alone, and its model runner
    # never looks at a grammar's bit mask, a generator or a penalty (vllm_neuron/worker/
    # neuronx_distributed_model_runner.py; prefix cache, LoRA and EAGLE: AWS's vLLM User Guide for NxD
    # Inference, SDK 2.28.1). Not yet run on a device.
    "vllm-neuron": Abilities(priority=True, prefix_cache=True, speculation=True),
    # optimum-neuron 0.4.5 gives its sampler no generators and no logits processors, returns no log
    # probabilities and turns the prefix cache off (optimum/neuron/vllm/runner.py, platform.py). Not yet run
    # on a device.
    "optimum-neuron": Abilities(priority=True),
}
"""By kind of engine. What one process can do may be less, as its settings have it; it says so when ready."""


def common(engines: Iterable[Abilities]) -> Abilities:
    """What all of these can do, none being there for nothing."""
    others = iter(engines)
    found = next(others, Abilities())
    for each in others:
        if each != found:  # only while some are replaced, and every request asks
            found = Abilities(*map(_both, astuple(found), astuple(each)))
    return found


def _both(one: Any, other: Any) -> Any:
    """Of a field: truth where both are true, the lesser count, the names that both have."""
    if one is None or other is None:
        return None
    if isinstance(one, tuple):
        return tuple(name for name in one if name in other)
    return min(one, other)


@dataclass(frozen=True, slots=True)
class _Need:
    """ability: a field of Abilities. words: what asks for it, as the caller is told."""

    ability: str
    words: str
    asks: Callable[[SamplingParams], bool]


_NEEDS = (
    _Need(
        "grammar",
        "answers held to a grammar (a JSON schema, a strict tool, or a tool choice that demands a call)",
        lambda sampling: bool(sampling.grammar),
    ),
    _Need("logprobs", "logprobs", lambda sampling: sampling.logprobs is not None),
    _Need("min_p", "min_p", lambda sampling: sampling.min_p > 0),
    _Need("repetition_penalty", "repetition_penalty", lambda sampling: sampling.repetition_penalty != 1),
    _Need("presence_penalty", "presence_penalty", lambda sampling: sampling.presence_penalty != 0),
    _Need("frequency_penalty", "frequency_penalty", lambda sampling: sampling.frequency_penalty != 0),
    _Need("logit_bias", "logit_bias", lambda sampling: bool(sampling.logit_bias)),
)


def lacking(
    abilities: Abilities, sampling: SamplingParams, *, priority: int = 0, seeded: bool = False
) -> str | None:
    """What a request asks for and the engine cannot do, in words to follow "does not support"; None if it can
    do everything. seeded: the caller gave the seed, and so wants the same answer again."""
    for need in _NEEDS:
        if getattr(abilities, need.ability) in (False, None) and need.asks(sampling):
            return need.words
    if seeded and not abilities.seed:
        return "seed"
    # Background work takes what others leave; where nobody comes before anybody, that costs it nothing.
    if priority not in (0, BACKGROUND) and not abilities.priority:
        return "a service tier other than default"
    return None
