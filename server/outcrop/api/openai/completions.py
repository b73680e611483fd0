"""Answers of `/openai/v1/completions`: whole, and as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from outcrop.api.inference import FINISH_REASONS
from outcrop.api.openai.completion_request import CompletionRequest
from outcrop.api.openai.logprobs import LogprobsForm
from outcrop.api.openai.merge import merge
from outcrop.catalog.model import TextDelta

Answers = Sequence[AsyncGenerator[TextDelta, None]]
"""One for each prompt. They are closed by whoever takes them."""

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Completion:
    """The answers to the prompts of one request, in the order of its prompts. logprobs: how they tell log
    probabilities, if they do."""

    request: CompletionRequest
    request_id: str
    logprobs: LogprobsForm | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    async def answer(self, answers: Answers) -> dict[str, object]:
        """The whole answer."""
        deltas: list[list[TextDelta]] = [[] for _ in answers]
        async with aclosing(merge(answers)) as merged:
            async for index, delta in merged:
                deltas[index].append(delta)
        choices = [self._choice(index, _together(each)) for index, each in enumerate(deltas)]
        return {**self._head(), "choices": choices, "usage": usage([each[-1] for each in deltas])}

    async def frames(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """The answer as it grows: for each prompt a chunk per step of the engine, also where the step
        completed no character, so that a client sees when tokens came."""
        includes_usage = self.request.includes_usage
        # Chunks differ in their choice alone.
        before = b"data: " + _encode(self._head())[:-1] + b',"choices":['
        after = b'],"usage":null}\n\n' if includes_usage else b"]}\n\n"
        last: dict[int, TextDelta] = {}
        characters = [0] * len(answers)
        async with aclosing(merge(answers)) as deltas:
            async for index, delta in deltas:
                last[index] = delta
                choice = self._choice(index, delta, characters[index])
                if self.logprobs is not None:
                    characters[index] += self.logprobs.characters(delta.tokens)
                yield before + _encode(choice) + after
        if includes_usage:
            body = {**self._head(), "choices": [], "usage": usage(last.values())}
            yield b"data: " + _encode(body) + b"\n\n"
        yield DONE

    def _head(self) -> dict[str, object]:
        return {
            "id": f"cmpl-{self.request_id}",
            "object": "text_completion",
            "created": self.created,
            "model": self.request.model,
        }

    def _choice(self, index: int, delta: TextDelta, before: int = 0) -> dict[str, object]:
        """before: characters that began in earlier deltas."""
        form = self.logprobs
        choice: dict[str, object] = {
            "index": index,
            "text": delta.text,
            "logprobs": form and form.completion(delta.tokens, delta.logprobs, before),
            "finish_reason": FINISH_REASONS[delta.end] if delta.end else None,
        }
        if self.request.return_token_ids:
            choice["token_ids"] = delta.tokens
        return choice


def _together(deltas: Sequence[TextDelta]) -> TextDelta:
    """An answer's deltas as one."""
    return msgspec.structs.replace(
        deltas[-1],
        text="".join(each.text for each in deltas),
        tokens=[token for each in deltas for token in each.tokens],
        logprobs=[told for each in deltas for told in each.logprobs],
    )


def usage(last: Collection[TextDelta]) -> dict[str, object]:
    """The tokens of all prompts and answers together."""
    prompt, generated = sum(each.prompt for each in last), sum(each.generated for each in last)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached for each in last)},
    }
