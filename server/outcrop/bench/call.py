"""One call and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Call:
    """Seconds on the monotonic clock. due: when it was to be sent; begun: when it was; pieces: when each
    piece of the answer came; ended: when the answer was complete, None where it did not come to that.
    input_tokens, output_tokens: as the server counts them. error: what went wrong, in a few words."""

    begun: float
    pieces: list[float] = field(default_factory=list)
    output_tokens: int = 0
    input_tokens: int = 0
    due: float = 0.0
    ended: float | None = None
    error: str = ""
