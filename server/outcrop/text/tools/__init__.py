"""Tools: how a prompt offers them, how a model writes calls of them, and how a grammar holds it to that."""

from outcrop.text.tools.format import ToolFormat
from outcrop.text.tools.parser import ToolParser
from outcrop.text.tools.pieces import CallEnd, CallInput, CallStart, Piece, TextPiece
from outcrop.text.tools.tool import ANY, AUTO, Tool, ToolCall, ToolChoice, ToolResult

__all__ = [
    "ANY",
    "AUTO",
    "CallEnd",
    "CallInput",
    "CallStart",
    "Piece",
    "TextPiece",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolFormat",
    "ToolParser",
    "ToolResult",
]
