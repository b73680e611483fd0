"""An answer as Anthropic's Message, whole and as the events of its stream."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from outcrop.api.answer import AnswerEvents, Event
from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.guardrails.guard import Guard
from outcrop.catalog.model import TextDelta

_AS_END_TURN = ("malformed_tool_use", "malformed_model_output", "guardrail_intervened")
"""Converse's reasons that Anthropic has no name for. Its others are Converse's own."""


class GrowingMessage(GrowingAnswer):
    """One Message.

    model: what the client called it. prefix: of the message's id. marks_cache: the usage tells apart what the
    prefix cache did. A block without text is left out: clients send answers back, and there it is refused.
    """

    def __init__(self, events: AnswerEvents, model: str, *, prefix: str, marks_cache: bool) -> None:
        self._events = events
        self._model = model
        self._id = prefix + secrets.token_hex(12)
        self._marks_cache = marks_cache
        self._last: TextDelta | None = None
        self._begun = -1  # the last block that has begun
        self._index = -1  # its index in the stream

    def watch(self, guard: Guard) -> None:
        self._events.guard = guard

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        started = [] if self._last is not None else [{"type": "message_start", "message": self._start(delta)}]
        self._last = delta
        events = self._events.grow(delta)
        blocks = (each for event in events for each in self._of(event))
        ended = self._ended(delta) if delta.end is not None else ()
        return [*started, *blocks, *ended]

    def whole(self) -> dict[str, Any]:
        assert self._last is not None
        content = [_block(each) for each in self._events.content if each.get("text") != ""]
        return {
            **self._start(self._last),
            "content": content,
            **self._stop(self._last),
            "usage": self._usage(self._last),
        }

    def _start(self, delta: TextDelta) -> dict[str, Any]:
        """The message before it has any content."""
        return {
            "model": self._model,
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(delta),
        }

    def _of(self, event: Event) -> Iterator[dict[str, Any]]:
        kind, body = event
        block = body["contentBlockIndex"]
        if kind == "contentBlockStart":
            yield self._begin(block, _tool_use(body["start"]["toolUse"], {}))
        elif kind == "contentBlockDelta":
            delta = body["delta"]
            if "toolUse" in delta:
                yield self._delta({"type": "input_json_delta", "partial_json": delta["toolUse"]["input"]})
            elif delta["text"]:
                if block != self._begun:
                    yield self._begin(block, {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": delta["text"]})
        elif block == self._begun:
            yield {"type": "content_block_stop", "index": self._index}

    def _begin(self, block: int, content: dict[str, Any]) -> dict[str, Any]:
        self._begun = block
        self._index += 1
        return {"type": "content_block_start", "index": self._index, "content_block": content}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _ended(self, last: TextDelta) -> Iterator[dict[str, Any]]:
        yield {"type": "message_delta", "delta": self._stop(last), "usage": self._usage(last)}
        yield {"type": "message_stop"}

    def _stop(self, last: TextDelta) -> dict[str, Any]:
        assert last.end is not None
        reason = self._events.stop_reason(last.end)
        stop_reason = "end_turn" if reason in _AS_END_TURN else reason
        return {"stop_reason": stop_reason, "stop_sequence": last.matched}

    def _usage(self, delta: TextDelta) -> dict[str, Any]:
        """Of an answer that grows, what is known of it so far: the tokens stored are known at its end."""
        read, written = (delta.cached, delta.stored) if self._marks_cache else (0, 0)
        return {
            "input_tokens": delta.prompt - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "output_tokens": delta.generated,
        }


def _block(block: dict[str, Any]) -> dict[str, Any]:
    if "toolUse" in block:
        return _tool_use(block["toolUse"], block["toolUse"]["input"])
    return {"type": "text", "text": block["text"]}


def _tool_use(call: dict[str, Any], arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["toolUseId"], "name": call["name"], "input": arguments}
