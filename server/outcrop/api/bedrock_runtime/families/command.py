"""An answer as Cohere's Command R gives it, whole and as the events of its stream."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from outcrop.api.answer import AnswerEvents, Event
from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.guardrails.guard import Guard
from outcrop.catalog.model import EndReason, TextDelta

_REASONS = {
    EndReason.END_TURN: "COMPLETE",
    EndReason.STOP_SEQUENCE: "COMPLETE",
    EndReason.MAX_TOKENS: "MAX_TOKENS",
    EndReason.CONTEXT: "ERROR_LIMIT",
    EndReason.GUARDRAIL: "COMPLETE",
}


class GrowingCommand(GrowingAnswer):
    """history: the turns up to the answer, which the answer repeats."""

    def __init__(self, events: AnswerEvents, history: Sequence[dict[str, Any]]) -> None:
        self._events = events
        self._history = history
        self._last: TextDelta | None = None
        self._response_id, self._generation_id = str(uuid.uuid4()), str(uuid.uuid4())

    def watch(self, guard: Guard) -> None:
        self._events.guard = guard

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        begins = self._last is None
        self._last = delta
        events = self._events.grow(delta)
        return list(self._chunks(events, begins=begins, ended=delta.end is not None))

    def whole(self) -> dict[str, Any]:
        last = self._last
        assert last is not None
        assert last.end is not None
        content = self._events.content
        text = "".join(block.get("text", "") for block in content)
        calls = [
            {"name": block["toolUse"]["name"], "parameters": block["toolUse"]["input"]}
            for block in content
            if "toolUse" in block
        ]
        with_calls = {"tool_calls": calls} if calls else {}
        units = {"input_tokens": last.prompt, "output_tokens": last.generated}
        return {
            "response_id": self._response_id,
            "generation_id": self._generation_id,
            "text": text,
            "chat_history": [*self._history, {"role": "CHATBOT", "message": text, **with_calls}],
            "finish_reason": _REASONS[last.end],
            **with_calls,
            "meta": {"api_version": {"version": "1"}, "billed_units": units},
        }

    def _chunks(self, events: Iterable[Event], *, begins: bool, ended: bool) -> Iterator[dict[str, Any]]:
        """Calls are told together, as in Cohere's streams: when all of them are there."""
        if begins:
            yield _chunk("stream-start", generation_id=self._generation_id)
        for kind, body in events:
            if kind == "contentBlockDelta" and body["delta"].get("text"):
                yield _chunk("text-generation", text=body["delta"]["text"])
        if ended:
            response = self.whole()
            if calls := response.get("tool_calls"):
                yield _chunk("tool-calls-generation", tool_calls=calls)
            yield _chunk("stream-end", True, finish_reason=response["finish_reason"], response=response)


def _chunk(event_type: str, is_finished: bool = False, **members: Any) -> dict[str, Any]:
    return {"is_finished": is_finished, "event_type": event_type, **members}
