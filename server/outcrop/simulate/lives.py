"""What became of each request."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from outcrop.simulate.trace import Counts, Trace

NEVER = -1


@dataclass(slots=True)
class Lives:
    """Columns, a row for each request of `trace`; nanoseconds, NEVER where it did not come to that. begun:
    its prompt's first step is planned. first, last: a token reaches the client. longest: gap between two of
    its tokens. tokens: of the answer. refused: it can never run."""

    trace: Trace
    arrival: Counts = field(init=False)
    begun: Counts = field(init=False)
    first: Counts = field(init=False)
    last: Counts = field(init=False)
    longest: Counts = field(init=False)
    tokens: Counts = field(init=False)
    refused: int = 0

    def __post_init__(self) -> None:
        count = len(self.trace)
        self.arrival = self.trace.arrival.copy()
        self.begun, self.first, self.last = (np.full(count, NEVER, dtype=np.int64) for _ in range(3))
        self.longest, self.tokens = (np.zeros(count, dtype=np.int64) for _ in range(2))

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """[N] whether it came to an answer."""
        found: npt.NDArray[np.bool_] = self.last != NEVER
        return found
