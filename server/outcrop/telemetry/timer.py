"""When what happened of one generation."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from outcrop.telemetry.histogram import Distribution

COMPLETE = frozenset(("stop", "length"))
"""Outcomes of answers that came to their end."""


@dataclass(frozen=True, slots=True)
class ModelTimes:
    """Where the times of one model's generations are counted: seconds, and tokens for the last two."""

    first_token: Distribution
    between_tokens: Distribution
    end_to_end: Distribution
    queue: Distribution
    prefill: Distribution
    decode: Distribution
    per_output_token: Distribution
    prompt_tokens: Distribution
    output_tokens: Distribution


class GenerationTimer:
    """Feeds the histograms from one answer's deltas, and keeps what they were fed for whoever else wants it.

    All are seconds of `perf_counter`. arrived: when the request came in; submitted: when its prompt was ready
    for the engine. queued: from there to its first step; prefill: from there to the first token; decode: from
    there to the last token. None while that has not happened."""

    def __init__(self, arrived: float, prompt_tokens: int, times: ModelTimes) -> None:
        self.arrived = arrived
        self.submitted = perf_counter()
        self.queued: float | None = None
        self.first: float | None = None
        self.last: float | None = None
        self._prompt_tokens = prompt_tokens
        self._times = times
        self._seen = 0

    def tokens(self, generated: int, queued: float) -> None:
        """The answer now has `generated` tokens; several at once share the time since the last."""
        new = generated - self._seen
        if new <= 0:
            return
        now = perf_counter()
        if self.last is None:
            self.first, self.queued = now, queued
            self._times.first_token.observe(now - self.arrived)
            self._times.queue.observe(queued)
            self._times.prefill.observe(max(0.0, now - self.submitted - queued))
        else:
            self._times.between_tokens.observe((now - self.last) / new, new)
        self.last, self._seen = now, generated

    @property
    def prefill(self) -> float | None:
        """Seconds from the first step to the first token."""
        if self.first is None or self.queued is None:
            return None
        return max(0.0, self.first - self.submitted - self.queued)

    @property
    def decode(self) -> float | None:
        """Seconds from the first token to the last so far."""
        return None if self.first is None or self.last is None else self.last - self.first

    @property
    def first_token(self) -> float | None:
        """Seconds from the request to its first token."""
        return None if self.first is None else self.first - self.arrived

    def ended(self, reason: str) -> None:
        """The answer is complete, or was given up: stop, length, abort or error."""
        if reason not in COMPLETE:
            return
        self._times.end_to_end.observe(perf_counter() - self.arrived)
        self._times.prompt_tokens.observe(self._prompt_tokens)
        self._times.output_tokens.observe(self._seen)
        if (decode := self.decode) is not None:
            self._times.decode.observe(decode)
            if self._seen > 1:
                self._times.per_output_token.observe(decode / (self._seen - 1))
