"""One choice of a chat completion, whole and as the choices of its stream's chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from outcrop.api.answer import AnswerEvents, Event
from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.guardrails.guard import Guard
from outcrop.api.openai.logprobs import LogprobsForm, ToldLogprobs
from outcrop.catalog.model import TextDelta

_FINISH_REASONS = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
}
"""OpenAI's words for Converse's stop reasons; for the rest it says stop."""


class GrowingChoice(GrowingAnswer):
    """index: of the choice among those of its request. logprobs: how it tells log probabilities, if it does.
    last: the delta that came last."""

    last: TextDelta

    def __init__(self, events: AnswerEvents, index: int = 0, logprobs: LogprobsForm | None = None) -> None:
        self._events = events
        self._index = index
        self._tells = logprobs is not None
        self._told = ToldLogprobs(logprobs)
        self._calls = -1  # the index of the call that grows
        self._begun = False

    def watch(self, guard: Guard) -> None:
        self._events.guard = guard

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        self.last = delta
        self._told.push(delta)
        events = self._events.grow(delta)
        return list(self._choices(events, ended=delta.end is not None))

    def whole(self) -> dict[str, Any]:
        content = self._events.content
        text = "".join(block.get("text", "") for block in content)
        calls = [_call(block["toolUse"]) for block in content if "toolUse" in block]
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        return {
            "index": self._index,
            "message": message,
            "logprobs": _content(self._told.every) if self._tells else None,
            "finish_reason": self._finish_reason(),
        }

    def _choices(self, events: Iterable[Event], *, ended: bool) -> Iterator[dict[str, Any]]:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": ""}
            yield {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": None}
        for kind, body in events:
            if kind == "contentBlockStart":
                self._calls += 1
                call = body["start"]["toolUse"]
                begun = {
                    "index": self._calls,
                    "id": call["toolUseId"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": ""},
                }
                yield self._choice({"tool_calls": [begun]})
            elif kind == "contentBlockDelta":
                part = body["delta"]
                if "toolUse" in part:
                    more = {"index": self._calls, "function": {"arguments": part["toolUse"]["input"]}}
                    yield self._choice({"tool_calls": [more]})
                elif part["text"]:
                    yield self._choice({"content": part["text"]})
        if ended:
            yield self._choice({}, self._finish_reason())

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """With it go the log probabilities of all tokens that came since the chunk before."""
        new = self._told.take()
        logprobs = _content(new) if new else None
        return {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    def _finish_reason(self) -> str:
        assert self.last.end is not None
        return _FINISH_REASONS.get(self._events.stop_reason(self.last.end), "stop")


def _content(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"content": entries, "refusal": None}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Arguments as the text that the model wrote."""
    function = {"name": call["name"], "arguments": bytes(call["input"]).decode()}
    return {"id": call["toolUseId"], "type": "function", "function": function}
