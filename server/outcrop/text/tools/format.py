"""How a model writes calls of tools."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from outcrop.text.tools.grammar import MAX_CALLS, calls_grammar, text_or_calls_grammar
from outcrop.text.tools.parser import MARKERS, ToolParser
from outcrop.text.tools.tool import AUTO, Tool, ToolChoice


class ToolFormat:
    """How a model writes calls.

    Models write them in several forms, whatever they were told, and the parser takes any of them; a
    grammar holds the model to one, `{"name": "f", "parameters": {...}}`. So formats differ in one thing,
    markers: those of the model's special tokens that tell calls from text. The detokenizer must let them
    appear as text for the parser to see them.
    """

    def __init__(self, special_tokens: Collection[str] = ()) -> None:
        self.markers = tuple(marker for marker in MARKERS if marker in special_tokens)

    def parser(self, tools: Sequence[Tool]) -> ToolParser:
        """A parser for one answer."""
        return ToolParser(tool.name for tool in tools)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice = AUTO) -> str:
        """The llguidance grammar that holds an answer to the choice, "" if there is nothing to hold it to.
        Raises ValueError if the choice is of no such tool. Whether the tools' schemas can be compiled,
        `GrammarCompiler.check` tells."""
        if choice.mode == "auto":
            if choice.parallel and not any(tool.strict for tool in tools):
                return ""
            return text_or_calls_grammar(tools, most=MAX_CALLS if choice.parallel else 1)
        if choice.mode == "any":
            allowed = list(tools)
        else:
            allowed = [tool for tool in tools if tool.name == choice.name]
        if not allowed:
            raise ValueError(f"there is no tool to choose for {choice}")
        # As many calls as there are tools: with one, which is how libraries ask for structured answers, a
        # small model would otherwise go on and call it again.
        return calls_grammar(allowed, most=len(allowed) if choice.parallel else 1)
