"""An answer that is one text, for families whose bodies know nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import msgspec

from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.guardrails.guard import Guard
from outcrop.catalog.model import TextDelta


class GrowingText(GrowingAnswer):
    """last: the delta that came last."""

    last: TextDelta

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._guard: Guard | None = None

    @property
    def text(self) -> str:
        """All of it so far; of one that was blocked the message alone."""
        if self._guard is not None and self._guard.blocked:
            return self._guard.message
        return "".join(self._texts)

    def watch(self, guard: Guard) -> None:
        self._guard = guard

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        """A chunk where there is more text, and at the beginning and the end."""
        if self._guard is not None:
            text = self._guard.push(delta.text) + (self._guard.finish() if delta.end else "")
            delta = msgspec.structs.replace(delta, text=text)
        is_first = not self._texts
        self._texts.append(delta.text)
        self.last = delta
        return (self.chunk(delta, is_first=is_first),) if is_first or delta.text or delta.end else ()

    @abstractmethod
    def chunk(self, delta: TextDelta, *, is_first: bool) -> dict[str, Any]:
        """One object of the stream."""
