"""What one step brought its requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outcrop.engine.messages import GenerationDelta
from outcrop.engine.request import Request

Columns = tuple[npt.NDArray[np.object_], npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""The first four fields of StepNews."""


@dataclass(frozen=True, slots=True)
class StepNews:
    """Columns for the requests that have one more token and go on, which are nearly all of nearly every
    step, and a delta for each of the others.

    Row i: `requests[i]`, whose slot was `slots[i]` in the step, goes on after `tokens[i]`, prompt and output
    being `known[i]` tokens then. A step that verified guesses may bring a request several tokens, in order.
    """

    requests: npt.NDArray[np.object_]  # [n] Request
    slots: npt.NDArray[np.intp]  # [n]
    tokens: npt.NDArray[np.intp]  # [n]
    known: npt.NDArray[np.intp]  # [n]
    others: list[GenerationDelta]

    def __len__(self) -> int:
        return len(self.tokens) + len(self.others)

    def __iter__(self) -> Iterator[GenerationDelta]:
        """Each request's news by itself."""
        columns = zip(self.requests.tolist(), self.tokens.tolist(), self.known.tolist(), strict=True)
        for request, token, known in columns:
            assert isinstance(request, Request)
            generated = known - request.prompt_len
            yield GenerationDelta(request.id, [token], generated, request.cached, held=request.held)
        yield from self.others


_NONE = np.empty(0, dtype=np.intp)

NO_NEWS = StepNews(np.empty(0, dtype=np.object_), _NONE, _NONE, _NONE, [])
