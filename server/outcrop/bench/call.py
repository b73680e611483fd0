"""One call and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Call:
    """Times are seconds on the monotonic clock. due: when it was to be sent; begun: when it was; pieces: when
    each piece of the answer came; ended: when the answer was complete, None where it did not come to that.
    input_tokens, output_tokens: as the server counts them. error: what went wrong, in a few words."""

    begun: float
    pieces: list[float] = field(default_factory=list)
    output_tokens: int = 0
    input_tokens: int = 0
    due: float = 0.0
    ended: float | None = None
    error: str = ""

    @property
    def answered(self) -> bool:
        """Whether it came to the end of its answer."""
        return not self.error and self.ended is not None

    @property
    def ttft_ms(self) -> float:
        """Of a call with pieces."""
        return 1000 * (self.pieces[0] - self.begun)

    @property
    def tpot_ms(self) -> float:
        """Of a call with pieces; 0 for an answer of one token."""
        return 1000 * (self.pieces[-1] - self.pieces[0]) / max(self.output_tokens - 1, 1)

    @property
    def e2e_ms(self) -> float:
        """Of a call that was answered."""
        assert self.ended is not None
        return 1000 * (self.ended - self.begun)
