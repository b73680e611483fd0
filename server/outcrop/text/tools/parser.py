"""Calls and text told apart while an answer arrives."""

from __future__ import annotations

from collections.abc import Iterable

from outcrop.text.tools.pieces import Piece, TextPiece


class ToolParser:
    """Turns the text of one growing answer into text pieces and calls of known tools."""

    def __init__(self, tool_names: Iterable[str]) -> None:
        self.malformed = False  # the answer ended inside a call, or a call's arguments are not JSON
        self._names = frozenset(tool_names)

    def push(self, text: str) -> list[Piece]:
        """Take more text; returns what is now certain."""
        return [TextPiece(text)] if text else []

    def finish(self) -> list[Piece]:
        """The answer is over: returns what was still held back. Sets `malformed`."""
        return []
