"""Answers of `/openai/v1/completions`: whole, and as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from outcrop.api.inference import FINISH_REASONS
from outcrop.api.openai.completion_request import CompletionRequest
from outcrop.api.openai.merge import merge
from outcrop.catalog.model import TextDelta

Answers = Sequence[AsyncGenerator[TextDelta, None]]
"""One for each prompt. They are closed by whoever takes them."""

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Completion:
    """The answers to the prompts of one request, in the order of its prompts."""

    request: CompletionRequest
    request_id: str
    created: int = field(default_factory=lambda: int(time.time()))

    async def answer(self, answers: Answers) -> dict[str, object]:
        """The whole answer."""
        texts: list[list[str]] = [[] for _ in answers]
        tokens: list[list[int]] = [[] for _ in answers]
        last: dict[int, TextDelta] = {}
        async with aclosing(merge(answers)) as deltas:
            async for index, delta in deltas:
                texts[index].append(delta.text)
                tokens[index] += delta.tokens
                last[index] = delta
        choices = [
            self._choice(index, "".join(texts[index]), tokens[index], last[index])
            for index in range(len(answers))
        ]
        return {**self._head(), "choices": choices, "usage": usage(last.values())}

    async def frames(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """The answer as it grows: for each prompt a chunk per step of the engine, also where the step
        completed no character, so that a client sees when tokens came."""
        includes_usage = self.request.includes_usage
        # Chunks differ in their choice alone.
        before = b"data: " + _encode(self._head())[:-1] + b',"choices":['
        after = b'],"usage":null}\n\n' if includes_usage else b"]}\n\n"
        last: dict[int, TextDelta] = {}
        async with aclosing(merge(answers)) as deltas:
            async for index, delta in deltas:
                last[index] = delta
                choice = self._choice(index, delta.text, delta.tokens, delta)
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

    def _choice(self, index: int, text: str, tokens: Sequence[int], delta: TextDelta) -> dict[str, object]:
        choice: dict[str, object] = {
            "index": index,
            "text": text,
            "logprobs": None,
            "finish_reason": FINISH_REASONS[delta.end] if delta.end else None,
        }
        if self.request.return_token_ids:
            choice["token_ids"] = tokens
        return choice


def usage(last: Collection[TextDelta]) -> dict[str, object]:
    """The tokens of all prompts and answers together."""
    prompt, generated = sum(each.prompt for each in last), sum(each.generated for each in last)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached for each in last)},
    }
