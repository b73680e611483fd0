"""Sampling parameters that a client may give beside those that every protocol has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from outcrop.api.json_schema import Number, NumberMap, Rule

MAX_SEED = 2**31 - 1
MAX_BIASES = 1024


@dataclass(frozen=True, slots=True)
class SamplingExtras:
    """As in `SamplingParams`. top_k: 0 for the backend's cap. seed: None for the server's or a random one."""

    top_k: int = 0
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> SamplingExtras:
        """From a document that satisfies `extra_members`; its other members are ignored."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        if "logit_bias" in known:
            known["logit_bias"] = {int(token): float(bias) for token, bias in known["logit_bias"].items()}
        return cls(**known)


NO_EXTRAS = SamplingExtras()


@cache
def extra_members(vocab_size: int) -> Mapping[str, Rule]:
    """What a document may hold for `SamplingExtras`. Zero would be no penalty to multiply by, so the
    repetition penalty is at least 0.01."""
    return {
        "top_k": Number(0, MAX_SEED, integer=True),
        "seed": Number(0, MAX_SEED, integer=True),
        "min_p": Number(0, 1),
        "repetition_penalty": Number(0.01, 100),
        "presence_penalty": Number(-2, 2),
        "frequency_penalty": Number(-2, 2),
        "logit_bias": NumberMap(Number(-100, 100), keys=vocab_size, most=MAX_BIASES),
    }
