"""Log probabilities of an answer's tokens, in the forms of chat completions, responses and completions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from outcrop.catalog.model import TextDelta
from outcrop.engine.client import TokenLogprobs
from outcrop.text.tokenizer import Tokenizer

MOST_LIKELIEST = 20
"""Likeliest tokens that a request may ask for in each place: OpenAI's own limit for chat completions."""


class LogprobsForm:
    """Says tokens as text: bytes that are no UTF-8 by themselves, as those of half a character, are written
    \\xe2, and control tokens by their names."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._names = {token: name.encode() for name, token in tokenizer.special_tokens.items()}

    def chat(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
        """`logprobs.content` of a chat completion, and `logprobs` of a response's text, for these tokens."""
        return [
            {
                **self._entry(token, told.logprob),
                "top_logprobs": [self._entry(*each) for each in told.likeliest],
            }
            for token, told in zip(tokens, logprobs, strict=True)
        ]

    def completion(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs], offset: int = 0
    ) -> dict[str, Any]:
        """`logprobs` of a completion, in whose text `offset` characters begin before these tokens. Of each
        place, the token that was chosen is among the likeliest, as the API promises."""
        lengths = [self.characters([token]) for token in tokens]
        return {
            "tokens": [self._text(token) for token in tokens],
            "token_logprobs": [told.logprob for told in logprobs],
            "top_logprobs": [
                {self._text(each): logprob for each, logprob in [*told.likeliest, (token, told.logprob)]}
                for token, told in zip(tokens, logprobs, strict=True)
            ],
            "text_offset": list(accumulate(lengths, initial=offset))[:-1],
        }

    def characters(self, tokens: Sequence[int]) -> int:
        """How many characters begin in these tokens."""
        return sum(byte & 0xC0 != 0x80 for token in tokens for byte in self._token_bytes(token))

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self._text(token), "logprob": logprob, "bytes": list(self._bytes(token))}

    def _bytes(self, token: int) -> bytes:
        return self._names.get(token) or self._token_bytes(token)

    def _text(self, token: int) -> str:
        return self._bytes(token).decode("utf-8", "backslashreplace")


class ToldLogprobs:
    """Those of a growing answer, as `LogprobsForm.chat` has them; none where form is None, for they are not
    asked for. every: of all tokens so far."""

    def __init__(self, form: LogprobsForm | None) -> None:
        self._form = form
        self._taken = 0
        self.every: list[dict[str, Any]] = []

    def push(self, delta: TextDelta) -> None:
        if self._form is not None:
            self.every += self._form.chat(delta.tokens, delta.logprobs)

    def take(self) -> list[dict[str, Any]]:
        """Those that came since they were last taken."""
        new, self._taken = self.every[self._taken :], len(self.every)
        return new
