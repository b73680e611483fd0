"""Answers of `/openai/v1/chat/completions`: whole, and as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from outcrop.api.openai.choice import GrowingChoice
from outcrop.api.openai.completions import DONE, Answers, usage
from outcrop.api.openai.merge import merge

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """What the objects of one completion share. model: what the client called it."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[GrowingChoice]) -> dict[str, Any]:
        """The answer when all choices are whole."""
        return {
            **self._head("chat.completion"),
            "choices": [choice.whole() for choice in choices],
            "usage": usage([choice.last for choice in choices]),
        }

    def chunk(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """One chunk of the stream. choices: as GrowingChoice gives them."""
        return {**self._head("chat.completion.chunk"), "choices": choices}

    async def answer(self, choices: Sequence[GrowingChoice], answers: Answers) -> dict[str, Any]:
        """The whole answer, from the deltas of each choice."""
        async with aclosing(merge(answers)) as deltas:
            async for index, delta in deltas:
                choices[index].push(delta)
        return self.whole(choices)

    async def frames(
        self, choices: Sequence[GrowingChoice], answers: Answers, *, includes_usage: bool
    ) -> AsyncGenerator[bytes, None]:
        """The answer as its tokens come. includes_usage: a last chunk tells it."""
        # Chunks differ in their choice alone.
        before = b"data: " + _encode(self._head("chat.completion.chunk"))[:-1] + b',"choices":['
        after = b'],"usage":null}\n\n' if includes_usage else b"]}\n\n"
        async with aclosing(merge(answers)) as deltas:
            async for index, delta in deltas:
                if frames := [before + _encode(each) + after for each in choices[index].push(delta)]:
                    yield b"".join(frames)
        if includes_usage:
            last = {**self.chunk([]), "usage": usage([choice.last for choice in choices])}
            yield b"data: " + _encode(last) + b"\n\n"
        yield DONE

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}
