"""vllm/sampling_params.py: what a request may ask for, checked as vLLM checks it."""

from __future__ import annotations

import enum
from typing import Any, ClassVar

from vllm.surface import Arguments


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


class StructuredOutputsParams(Arguments):
    NAME = "vllm.sampling_params.StructuredOutputsParams"


class SamplingParams(Arguments):
    NAME = "vllm.SamplingParams"
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "n": 1, "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "ignore_eos": False, "max_tokens": 16,
        "detokenize": True, "output_kind": RequestOutputKind.CUMULATIVE,
    }  # fmt: skip

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.stop_token_ids = list(self.stop_token_ids or ())
        for wrong in (
            not -2 <= self.presence_penalty <= 2,
            not -2 <= self.frequency_penalty <= 2,
            self.repetition_penalty <= 0,
            self.temperature < 0,
            not 0 < self.top_p <= 1,
            self.top_k < -1,
            not 0 <= self.min_p <= 1,
            self.max_tokens is not None and self.max_tokens < 1,
        ):
            if wrong:
                raise ValueError(f"{given} are no sampling parameters")
        if self.temperature < 1e-5:  # greedy
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0
