"""A logits processor for vLLM: the first tokens of an answer are given.

An answer that follows a grammar, or is penalised for what it has said, cannot go on after a restart with its
tokens in the prompt: vLLM would begin the grammar anew and forget what was said. It is generated again
instead, and made to say the same until it is where it was. Imported by vLLM's worker, in its environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

ARGUMENT = "outcrop_replay"
"""The member of `SamplingParams.extra_args` that has the token ids."""


class Replay(AdapterLogitsProcessor):  # type: ignore[misc]  # vLLM is in another environment
    """See `vllm/v1/sample/logits_processor/__init__.py`: one function a request, called with the ids of its
    answer so far and the logits [vocabulary] of the next."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(
        self, params: Any
    ) -> Callable[[list[int], torch.Tensor], torch.Tensor] | None:
        given: list[int] | None = (params.extra_args or {}).get(ARGUMENT)
        if not given:
            return None

        def force(answer: list[int], logits: torch.Tensor) -> torch.Tensor:
            if len(answer) < len(given):
                logits[:] = float("-inf")
                logits[given[len(answer)]] = 0.0
            return logits

        return force
