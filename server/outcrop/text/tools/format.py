"""How a model writes calls of tools."""

from __future__ import annotations

from collections.abc import Sequence

from outcrop.text.tools.parser import ToolParser
from outcrop.text.tools.tool import AUTO, Tool, ToolChoice


class ToolFormat:
    """How one model writes calls.

    markers: special tokens that tell calls from text; the detokenizer must let them appear as text for
    the parser to see them.
    """

    def __init__(self, markers: tuple[str, ...] = ()) -> None:
        self.markers = markers

    def parser(self, tools: Sequence[Tool]) -> ToolParser:
        """A parser for one answer."""
        return ToolParser(tool.name for tool in tools)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice = AUTO) -> str:
        """The llguidance grammar that holds an answer to the choice; "" if there is nothing to hold it to."""
        return ""
