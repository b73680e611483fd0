"""What vLLM says of one request, as pieces."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from outcrop.backends.streaming import Piece
from outcrop.backends.vllm.sampling import depends_on_answer
from outcrop.engine.messages import FinishReason, GenerationRequest, TokenLogprobs

logger = logging.getLogger(__name__)

_REASONS = {"stop": FinishReason.EOS, "abort": FinishReason.ABORT}
"""vLLM's words, less "length", of which there are two kinds."""


class Answer:
    """tokens: of the answer so far, those before a restart included. ended: its last piece has been made.

    One whose next token depends on the tokens before as such is generated anew after a restart, and what its
    client has had already is left out. Where it is not the same again, the request fails.
    """

    def __init__(self, request: GenerationRequest, limit: int) -> None:
        """limit: tokens of the context."""
        self.tokens = list(request.resumed)
        self.ended = False
        self._request = request
        self._limit = limit
        self._expected = list(request.resumed) if depends_on_answer(request) else []
        self._generated = len(request.resumed) - len(self._expected)

    def piece(
        self,
        tokens: Sequence[int],
        reason: str | None,
        logprobs: Sequence[TokenLogprobs] = (),
        *,
        cached: int = 0,
        running: float = 0.0,
    ) -> Piece | None:
        """For the tokens that came at once, the end of the turn among them, and vLLM's word for why it ended,
        if it did. None where there is nothing to tell. cached, running: as in Piece."""
        self._generated += len(tokens)
        finish = self._finish(reason)
        if finish is FinishReason.EOS:
            tokens, logprobs = tokens[:-1], logprobs[:-1]
        again = min(len(self._expected), len(tokens))
        if list(tokens[:again]) != self._expected[:again] or (finish and again < len(self._expected)):
            logger.error("request %s did not say again what it had said", self._request.request_id)
            return self.failed(FinishReason.ERROR)
        del self._expected[:again]
        new = list(tokens[again:])
        self.tokens += new
        self.ended = finish is not None
        if not new and finish is None:
            return None
        cached = min(cached, len(self._request.prompt))
        return Piece(new, self._generated, cached, finish, list(logprobs[again:]), running)

    def failed(self, finish: FinishReason) -> Piece:
        """The last piece of an answer that cannot be had."""
        self.ended = True
        return Piece([], len(self.tokens), finish=finish)

    def logprobs(self, tokens: Sequence[int], places: Sequence[Mapping[int, float]]) -> list[TokenLogprobs]:
        """places: of each token, log probabilities by id: its own and the likeliest."""
        wanted = self._request.sampling.logprobs or 0
        ranked = [sorted(place.items(), key=lambda each: -each[1])[:wanted] for place in places]
        return [
            TokenLogprobs(place[token], likeliest)
            for token, place, likeliest in zip(tokens, places, ranked, strict=True)
        ]

    def _finish(self, reason: str | None) -> FinishReason | None:
        if reason == "length":
            used = len(self._request.prompt) + self._generated
            return FinishReason.CONTEXT if used >= self._limit else FinishReason.LENGTH
        return None if reason is None else _REASONS.get(reason, FinishReason.ERROR)
