"""One served model: from token ids to text, with the reason and the counts that a client is told."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import msgspec

from outcrop.catalog.bedrock_models import FoundationModel
from outcrop.catalog.grammars import Grammars
from outcrop.catalog.reservation import Reservation
from outcrop.engine.client import (
    EngineClient,
    EngineUnavailable,
    FinishReason,
    GenerationRequest,
    ModelFailure,
    SamplingParams,
    TokenLogprobs,
)
from outcrop.text.chat_template import ChatTemplate
from outcrop.text.detokenizer import Detokenizer
from outcrop.text.stop import StopMatcher
from outcrop.text.tokenizer import Tokenizer


class EndReason(enum.StrEnum):
    """Why an answer ended, in terms that a client can act on."""

    END_TURN = "end_turn"  # the model ended its turn
    STOP_SEQUENCE = "stop_sequence"  # one of the request's stop sequences appeared
    MAX_TOKENS = "max_tokens"  # the request's own limit
    CONTEXT = "context"  # the context window is full
    GUARDRAIL = "guardrail"  # a guardrail blocked the prompt, or the rest of the answer


_END_REASONS = {
    FinishReason.EOS: EndReason.END_TURN,
    FinishReason.LENGTH: EndReason.MAX_TOKENS,
    FinishReason.CONTEXT: EndReason.CONTEXT,
}


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of an answer. `text` may be empty while characters or stop sequences are incomplete.

    prompt: tokens of the prompt; cached: how many of them came from the prefix cache; generated: output
    tokens so far, the end-of-turn token included. tokens: ids that the engine added, of which the text may
    not show all yet. logprobs: of these, where they were asked for. queued: seconds before its first step. On
    the last delta alone: `end`; stored, tokens of the prompt that the prefix cache keeps and did not have
    before; matched, the stop sequence that ended the answer, if one did.
    """

    text: str
    prompt: int
    cached: int
    generated: int
    end: EndReason | None = None
    stored: int = 0
    tokens: Sequence[int] = ()
    queued: float = 0.0
    matched: str | None = None
    logprobs: list[TokenLogprobs] = []


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with everything needed to answer from it. `id` is the identifier that it is listed under.
    arn: where it is not that of a foundation model. cache_block: tokens that the prefix cache keeps together,
    0 without one. adapter: as in GenerationRequest. size: bytes of its files, by which a router knows the
    larger of two; 0 where unknown. rows: requests that its engine runs at once; 0 where unknown. reservation:
    of the name that it was called by, if that has one."""

    id: str
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    engine: EngineClient
    name: str = ""
    provider: str = "Meta"
    aliases: tuple[str, ...] = ()
    arn: str = ""
    cache_block: int = 0
    adapter: str = ""
    size: int = 0
    rows: int = 0
    reservation: Reservation | None = field(default=None, compare=False)
    grammars: Grammars = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "grammars", Grammars(self.tokenizer))  # the class is frozen

    def reserved(self, reservation: Reservation) -> ServedModel:
        """The same model, called by a name with a reservation."""
        model = replace(self, reservation=reservation)
        object.__setattr__(model, "grammars", self.grammars)  # they take time to make
        return model

    @property
    def listing(self) -> FoundationModel:
        """How the model appears in ListFoundationModels."""
        return FoundationModel(self.id, self.name or self.id, self.provider)

    @property
    def max_model_len(self) -> int:
        """Tokens, prompt and output together, that one request may occupy. Valid once started."""
        return self.engine.max_model_len

    def exceeds_context(self, utf8_bytes: int) -> bool:
        """Whether a text is too long for the context whatever its tokens are: known without tokenizing."""
        return utf8_bytes / self.tokenizer.max_token_bytes >= self.max_model_len

    async def generate(
        self,
        request_id: str,
        prompt: list[int],
        sampling: SamplingParams,
        stop: Sequence[str] = (),
        *,
        visible: Collection[str] = (),
        priority: int = 0,
        cache_salt: str = "",
        session: str = "",
    ) -> AsyncGenerator[TextDelta, None]:
        """Stream the answer to `prompt` (1 to max_model_len - 1 token ids), ending with one delta that has
        its `end` set.

        visible: names of special tokens that appear in the text. priority, cache_salt, session: as in
        `GenerationRequest`. A stop sequence ends the answer and is not part of it. Closing the generator
        aborts the request in the engine. Raises EngineUnavailable or ModelFailure.
        """
        detokenizer = Detokenizer(self.tokenizer, visible)
        matcher = StopMatcher(stop)
        request = GenerationRequest(
            request_id, prompt, sampling, priority, cache_salt, session=session, adapter=self.adapter
        )
        generated = 0
        async with aclosing(self.engine.generate(request)) as deltas:
            async for delta in deltas:
                tokens, end = delta.tokens, None
                before, generated = generated, delta.generated
                if stop:
                    text, used = _up_to_stop(tokens, detokenizer, matcher)
                else:
                    text, used = matcher.push(detokenizer.push(tokens)), len(tokens)
                if matcher.matched is not None:
                    # What the same delta has after it, the end of the turn too, is not the answer's.
                    end = EndReason.STOP_SEQUENCE
                    tokens, generated = tokens[:used], before + used
                elif delta.finish is not None:
                    end = _end_reason(delta.finish)
                    # A limit may fall inside a character: what is there of it is left out.
                    if delta.finish is FinishReason.EOS:
                        text += matcher.push(detokenizer.finish())
                    text += matcher.finish()
                    if matcher.matched is not None:
                        end = EndReason.STOP_SEQUENCE
                    elif end is EndReason.MAX_TOKENS and len(prompt) + generated >= self.max_model_len:
                        end = EndReason.CONTEXT
                stored = 0 if end is None else self._stored(len(prompt), max(delta.cached, delta.held))
                yield TextDelta(
                    text,
                    len(prompt),
                    delta.cached,
                    generated,
                    end,
                    stored,
                    tokens,
                    delta.queued,
                    matcher.matched,
                    delta.logprobs[: len(tokens)],
                )
                if end is not None:
                    return
        raise EngineUnavailable(f"the engine of {self.id} ended request {request_id} without a reason")

    def _stored(self, prompt: int, held: int) -> int:
        """The prefix cache keeps whole blocks."""
        if not self.cache_block or not self.engine.abilities.prefix_cache:
            return 0
        return max(0, prompt - prompt % self.cache_block - held)


def _up_to_stop(tokens: Sequence[int], detokenizer: Detokenizer, matcher: StopMatcher) -> tuple[str, int]:
    """The text that the tokens complete before a stop sequence, and how many of them that takes: one by one,
    so that it is known where the answer ends, however many a delta brings."""
    text = ""
    for used, token in enumerate(tokens, 1):
        text += matcher.push(detokenizer.push((token,)))
        if matcher.matched is not None:
            return text, used
    return text, len(tokens)


def _end_reason(finish: FinishReason) -> EndReason:
    if finish is FinishReason.ERROR:
        raise ModelFailure("the model produced NaN or Inf")
    if finish is FinishReason.GRAMMAR:
        raise ModelFailure("the answer could not be held to its grammar")
    if finish is FinishReason.ABORT:
        raise EngineUnavailable("the engine aborted the request")
    return _END_REASONS[finish]
