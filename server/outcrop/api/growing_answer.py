"""One answer in a protocol's form, while it grows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from outcrop.api.guardrails.guard import Guard
from outcrop.catalog.model import TextDelta


class GrowingAnswer(ABC):
    """Takes the deltas of one answer, in their order, the last with its `end` set."""

    @abstractmethod
    def watch(self, guard: Guard) -> None:
        """Send the answer's text through a guardrail. Called before the first delta."""

    @abstractmethod
    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        """What a stream says of this delta: objects that become JSON, perhaps none."""

    @abstractmethod
    def whole(self) -> dict[str, Any]:
        """The answer as one object. Called after the last delta."""


async def complete(growing: GrowingAnswer, deltas: AsyncGenerator[TextDelta, None]) -> TextDelta:
    """Let the answer grow to its end; returns the last delta. Raises what the deltas raise."""
    async with aclosing(deltas):
        async for delta in deltas:
            growing.push(delta)
    return delta
