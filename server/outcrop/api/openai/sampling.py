"""The parameters of OpenAI's requests that say how tokens are chosen."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from outcrop.api.field_error import FieldError
from outcrop.api.sampling import MAX_BIASES, MAX_SEED, SamplingExtras
from outcrop.catalog.model import ServedModel

MAX_STOPS = 64

Stop = Annotated[str, Meta(min_length=1, max_length=1024)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Bias = Annotated[float, Meta(ge=-100, le=100)]


class Sampled(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """OpenAI's parameters, then those that vLLM adds under its names; null is the same as absence. The bounds
    are OpenAI's where it has any."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: Annotated[dict[int, _Bias], Meta(max_length=MAX_BIASES)] | None = None

    top_k: Annotated[int, Meta(ge=-1, le=MAX_SEED)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    ignore_eos: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def extras(self, vocab_size: int) -> SamplingExtras:
        """vLLM's top_k is -1 where it does not apply. Of a seed, OpenAI takes 64 bits; the engine has 31.
        Raises FieldError for a bias of no token."""
        for token in self.logit_bias or ():
            if not 0 <= token < vocab_size:
                raise FieldError("logit_bias", no_token(token, vocab_size))
        given = {
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "seed": None if self.seed is None else self.seed & MAX_SEED,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": self.logit_bias,
        }
        return SamplingExtras.of({name: value for name, value in given.items() if value is not None})


def tells_logprobs(model: ServedModel) -> bool:
    """Whether the model's engine does, as far as is known: one that is not up yet says so when it is."""
    return model.engine.abilities.logprobs is not None or not model.engine.ready


def no_token(token: int, vocab_size: int) -> str:
    return f"{token} is not a token id of this model, which are 0 to {vocab_size - 1}"
