"""What an answer consists of when its model may call tools."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextPiece:
    """More of the answer's text; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of the tool `name` begins. Its CallInput pieces and its CallEnd follow before anything else."""

    name: str


@dataclass(frozen=True, slots=True)
class CallInput:
    """More of the JSON text of the call's arguments, an object; never empty."""

    fragment: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call is complete: its fragments together are a JSON object."""


Piece = TextPiece | CallStart | CallInput | CallEnd
