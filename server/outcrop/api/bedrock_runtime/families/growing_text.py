"""An answer that is one text, for families whose bodies know nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from outcrop.api.growing_answer import GrowingAnswer
from outcrop.catalog.model import TextDelta


class GrowingText(GrowingAnswer):
    """last: the delta that came last."""

    last: TextDelta

    def __init__(self) -> None:
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._texts)

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        """A chunk where there is more text, and at the beginning and the end."""
        is_first = not self._texts
        self._texts.append(delta.text)
        self.last = delta
        return (self.chunk(delta, is_first=is_first),) if is_first or delta.text or delta.end else ()

    @abstractmethod
    def chunk(self, delta: TextDelta, *, is_first: bool) -> dict[str, Any]:
        """One object of the stream."""
