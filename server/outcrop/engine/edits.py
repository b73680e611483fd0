"""What a request's sampling parameters and its tokens so far do to the logits of its next token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from outcrop.backends.base import F32, I32
from outcrop.engine.messages import SamplingParams


class Matcher(Protocol):
    """One answer's progress through its grammar: `outcrop.text.grammar.GrammarMatcher`, which the engine
    does not import, since few engines ever need it."""

    def fill(self, mask: I32) -> None: ...

    def accept(self, token_id: int) -> bool: ...

    @property
    def finished(self) -> bool: ...

    @property
    def error(self) -> str: ...


class LogitEdits:
    """One request's edits, brought up to date with each of its tokens.

    `bias` and `repetition` are [V] float32, or None where the request asks for none. They are kept whole
    and not as lists of tokens, since the chip cannot scatter into a row of logits.
    """

    def __init__(
        self, sampling: SamplingParams, prompt: Sequence[int], vocab_size: int, matcher: Matcher | None
    ) -> None:
        self.matcher = matcher
        self.bias: F32 | None = None
        self.repetition: F32 | None = None
        self._presence, self._frequency = sampling.presence_penalty, sampling.frequency_penalty
        self._penalty = sampling.repetition_penalty
        self._logit_bias = sampling.logit_bias
        self._counts: Counter[int] = Counter()
        if sampling.logit_bias or self._presence or self._frequency:
            self.bias = np.zeros(vocab_size, dtype=np.float32)
            for token, value in sampling.logit_bias.items():
                if 0 <= token < vocab_size:
                    self.bias[token] = value
        if self._penalty != 1.0:
            self.repetition = np.ones(vocab_size, dtype=np.float32)
            self.repetition[list(prompt)] = self._penalty
        self.follows_tokens = bool(
            matcher is not None or self._presence or self._frequency or self.repetition is not None
        )
        """Whether the edits for one token depend on the token before it."""

    def accept(self, token: int) -> None:
        """One more token of the answer."""
        if self.matcher is not None:
            self.matcher.accept(token)
        if self.bias is not None and (self._presence or self._frequency):
            self._counts[token] += 1
            penalty = self._presence + self._frequency * self._counts[token]
            self.bias[token] = self._logit_bias.get(token, 0.0) - penalty
        if self.repetition is not None:
            self.repetition[token] = self._penalty

    @property
    def finished(self) -> bool:
        """Nothing can follow but the end."""
        return self.matcher is not None and self.matcher.finished

    @property
    def failed(self) -> bool:
        """The grammar can be followed no further."""
        return self.matcher is not None and bool(self.matcher.error)


def edits_of(
    sampling: SamplingParams, prompt: Sequence[int], vocab_size: int, matcher: Matcher | None
) -> LogitEdits | None:
    """A request's edits, or None if it has none and the plain graph will do."""
    plain = (
        matcher is None
        and not sampling.logit_bias
        and sampling.repetition_penalty == 1.0
        and not (sampling.presence_penalty or sampling.frequency_penalty)
    )
    return None if plain else LogitEdits(sampling, prompt, vocab_size, matcher)


def gather(
    edited: Iterable[tuple[int, LogitEdits]], rows: int, vocab_size: int
) -> tuple[I32 | None, F32 | None, F32 | None]:
    """`allowed`, `bias` and `repetition` of a step (see StepInput) with these edits at these rows.

    The masks are filled one after another: at a tenth of a millisecond each, handing them to threads
    costs more than it saves."""
    allowed: I32 | None = None
    bias: F32 | None = None
    repetition: F32 | None = None
    for row, edits in edited:
        if edits.matcher is not None:
            if allowed is None:
                allowed = np.full((rows, -(-vocab_size // 32)), -1, dtype=np.int32)
            edits.matcher.fill(allowed[row])
        if edits.bias is not None:
            if bias is None:
                bias = np.zeros((rows, vocab_size), dtype=np.float32)
            bias[row] = edits.bias
        if edits.repetition is not None:
            if repetition is None:
                repetition = np.ones((rows, vocab_size), dtype=np.float32)
            repetition[row] = edits.repetition
    return allowed, bias, repetition
