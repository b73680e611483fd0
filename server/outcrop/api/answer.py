"""A growing answer as the events of ConverseStream, and as the content of Converse's answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from outcrop.api.guardrails.guard import Guard
from outcrop.catalog.model import EndReason, TextDelta
from outcrop.text.tools import CallEnd, CallInput, CallStart, Piece, TextPiece, ToolParser

Event = tuple[str, dict[str, Any]]
"""An event's type and its body."""

_STOP_REASONS = {
    EndReason.END_TURN: "end_turn",
    EndReason.STOP_SEQUENCE: "stop_sequence",
    EndReason.MAX_TOKENS: "max_tokens",
    EndReason.CONTEXT: "model_context_window_exceeded",
    EndReason.GUARDRAIL: "guardrail_intervened",
}


class AnswerEvents:
    """The content blocks of one answer, numbered in their order: text, and calls of tools.

    A text block of white space alone is left out where calls follow: clients send answers back as history,
    and there the service refuses blank text. An answer without anything is one empty text block.

    guard: lets text through; calls of tools it does not look at, as in the service ("Include a guardrail with
    the Converse API" in the Amazon Bedrock user guide).
    """

    guard: Guard | None = None

    def __init__(self, parser: ToolParser | None, *, is_json: bool, call_prefix: str = "tooluse_") -> None:
        """parser: tells calls from text; None where there are no tools. is_json: the text is to be JSON.
        call_prefix: what the ids of calls begin with, by which protocols know their own."""
        self._call_prefix = call_prefix
        self._parser = parser
        self._is_json = is_json
        self._index = 0
        self._open = ""  # what block has begun and not ended: "", "text" or "toolUse"
        self._blank = ""  # white space that begins a text block, if one comes
        self._calls = 0
        self._text: list[str] = []
        self._call: dict[str, Any] = {}  # of the block that is open, and
        self._parts: list[str] = []  # what has been written of it
        self._ended: list[tuple[dict[str, Any], str]] = []  # each block's call, {} for text, and all of it

    @property
    def text(self) -> str:
        """All that the model wrote so far, calls as it wrote them; behind a guard, the text that it let
        through."""
        return "".join(self._text)

    @property
    def content(self) -> list[dict[str, Any]]:
        """The content blocks that have ended. A call that was cut off has no input that could be given, and
        is left out. Any other has the very text that a stream would give: what is JSON but no value of
        Python's, such as 1e999, reaches the client either way. Of an answer that was blocked nothing is left
        but the message."""
        if self._is_blocked and self.guard is not None:
            return [{"text": self.guard.message}]
        content: list[dict[str, Any]] = []
        for call, written in self._ended:
            if not call:
                content.append({"text": written})
            elif _is_json(written):
                content.append({"toolUse": {**call, "input": msgspec.Raw(written.encode())}})
        return content or [{"text": ""}]

    def grow(self, delta: TextDelta) -> list[Event]:
        """The events of a delta and, where it is the last, of the end."""
        events = list(self.push(delta.text))
        if delta.end is not None:
            events += self.finish()
        return events

    def push(self, text: str) -> Iterable[Event]:
        """The events of more text."""
        if self._parser is not None:
            if self.guard is None:
                self._text.append(text)
            return self._pieces(self._parser.push(text))
        if self.guard is not None:
            text = self.guard.push(text)
        self._text.append(text)
        if not text:
            return ()
        self._open = "text"
        return (self._text_delta(text),)

    def finish(self) -> Iterator[Event]:
        """The events at the end of the answer, up to the end of its last block."""
        if self._parser is not None:
            yield from self._pieces(self._parser.finish())
        yield from self._rest_of_text()
        if not self._open and not self._index:
            yield self._text_delta(self._blank)
        if self._open or not self._index:
            yield self._stop_block()

    def stop_reason(self, end: EndReason) -> str:
        """Why the answer ended. A limit that cut a call or JSON is told as the limit: there the client can
        act."""
        if end is EndReason.END_TURN:
            if self._is_json and not _is_json(self.text):
                return "malformed_model_output"
            if self._parser is not None and self._parser.malformed:
                return "malformed_tool_use"
            if self._calls:
                return "tool_use"
        return _STOP_REASONS[end]

    def _pieces(self, pieces: Iterable[Piece]) -> Iterator[Event]:
        for piece in pieces:
            yield from self._piece(piece)

    def _piece(self, piece: Piece) -> Iterator[Event]:
        if self._is_blocked:
            return
        match piece:
            case TextPiece(text):
                yield from self._say(text if self.guard is None else self.guard.push(text))
            case CallStart(name):
                yield from self._rest_of_text()
                if self._is_blocked:
                    return
                self._blank = ""
                if self._open:
                    yield self._stop_block()
                self._open = "toolUse"
                self._call = {"toolUseId": self._call_id(), "name": name}
                start = {"toolUse": self._call}
                yield "contentBlockStart", {"start": start, "contentBlockIndex": self._index}
            case CallInput(fragment):
                yield self._delta(fragment, {"toolUse": {"input": fragment}})
            case CallEnd():
                self._calls += 1
                yield self._stop_block()

    @property
    def _is_blocked(self) -> bool:
        return self.guard is not None and self.guard.blocked

    def _rest_of_text(self) -> Iterator[Event]:
        """What the guard has held back of a text that is over."""
        if self.guard is not None and (rest := self.guard.finish()):
            yield from self._say(rest)

    def _say(self, text: str) -> Iterator[Event]:
        """The event of text, unless it is white space that nothing has come before."""
        if self.guard is not None:
            self._text.append(text)
        text = self._blank + text
        if self._parser is not None and self._open != "text" and not text.strip():
            self._blank = text
            return
        self._blank, self._open = "", "text"
        yield self._text_delta(text)

    def _call_id(self) -> str:
        """The prefix and 22 characters, as the service's own."""
        return self._call_prefix + secrets.token_urlsafe(16)

    def _text_delta(self, text: str) -> Event:
        return self._delta(text, {"text": text})

    def _delta(self, part: str, delta: dict[str, Any]) -> Event:
        self._parts.append(part)
        return "contentBlockDelta", {"contentBlockIndex": self._index, "delta": delta}

    def _stop_block(self) -> Event:
        self._ended.append((self._call, "".join(self._parts)))
        self._call, self._parts = {}, []
        index = self._index
        self._index += 1
        self._open = ""
        return "contentBlockStop", {"contentBlockIndex": index}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)  # not msgspec, which refuses numbers that are too large for a float
    except (ValueError, RecursionError):
        return False
    return True
