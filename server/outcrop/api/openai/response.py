"""An answer as OpenAI's Response, whole and as the events of its stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import msgspec

from outcrop.api.answer import AnswerEvents, Event
from outcrop.api.connection import StreamForm
from outcrop.api.errors import ApiError
from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.guardrails.guard import Guard
from outcrop.api.openai import errors
from outcrop.api.openai.logprobs import LogprobsForm, ToldLogprobs
from outcrop.api.openai.responses_request import ResponsesRequest
from outcrop.catalog.model import TextDelta

_LIMITS = ("max_tokens", "model_context_window_exceeded")
_CUT = (*_LIMITS, "malformed_tool_use")
_encode = msgspec.json.Encoder().encode


class GrowingResponse(GrowingAnswer):
    """The items of one response: messages, and calls of functions. Events are numbered in their order.
    logprobs: how it tells log probabilities, if it does: there is one text then, and it has all tokens."""

    def __init__(
        self,
        request: ResponsesRequest,
        events: AnswerEvents,
        request_id: str,
        logprobs: LogprobsForm | None = None,
    ) -> None:
        self._request = request
        self._events = events
        self._told = ToldLogprobs(logprobs)
        self._id = f"resp_{request_id.replace('-', '')}"
        self._created = int(time.time())
        self._items: list[dict[str, Any]] = []
        self._texts: list[str] = []  # of the item that grows: its text or its arguments
        self._block = -1  # the block that is the item which grows
        self._last: TextDelta | None = None
        self._number = 0

    @property
    def form(self) -> StreamForm:
        """How the stream is sent."""
        return StreamForm("text/event-stream", self._failure)

    def watch(self, guard: Guard) -> None:
        self._events.guard = guard

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        begins = self._last is None
        self._last = delta
        self._told.push(delta)
        return list(self._push(delta, begins=begins))

    def whole(self) -> dict[str, Any]:
        assert self._last is not None
        assert self._last.end is not None
        limited = self._events.stop_reason(self._last.end) in _LIMITS
        return self._response("incomplete" if limited else "completed")

    async def frames(self, deltas: AsyncGenerator[TextDelta, None]) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, as its tokens come."""
        async with aclosing(deltas):
            async for delta in deltas:
                if frames := [_frame(event) for event in self.push(delta)]:
                    yield b"".join(frames)

    # -- events ------------------------------------------------------------------------------------

    def _push(self, delta: TextDelta, *, begins: bool) -> Iterator[dict[str, Any]]:
        if begins:
            for kind in ("response.created", "response.in_progress"):
                yield self._event(kind, response=self._response("in_progress"))
        for event in self._events.push(delta.text):
            yield from self._of(event, "completed")
        if delta.end is None:
            return
        last = list(self._events.finish())
        status = "incomplete" if self._events.stop_reason(delta.end) in _CUT else "completed"
        for event in last:
            yield from self._of(event, status)
        response = self.whole()
        yield self._event(f"response.{response['status']}", response=response)

    def _of(self, event: Event, status: str) -> Iterator[dict[str, Any]]:
        """status: of an item that ends with this event."""
        kind, body = event
        if kind == "contentBlockStart":
            call = body["start"]["toolUse"]
            names = {"call_id": call["toolUseId"], "name": call["name"], "arguments": ""}
            yield self._begin(body, {"id": _id("fc"), "type": "function_call", **names})
        elif kind == "contentBlockDelta":
            if body["contentBlockIndex"] != self._block:
                message = {"id": _id("msg"), "type": "message", "role": "assistant", "content": []}
                yield self._begin(body, message)
                yield self._part("response.content_part.added", part=_output_text("", []))
            yield from self._delta(body["delta"])
        else:
            yield from self._done(status)

    def _begin(self, body: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
        self._block = body["contentBlockIndex"]
        self._texts.clear()
        self._items.append({**item, "status": "in_progress"})
        return self._of_item("response.output_item.added", item=dict(self._items[-1]))

    def _delta(self, delta: dict[str, Any]) -> Iterator[dict[str, Any]]:
        text = delta["toolUse"]["input"] if "toolUse" in delta else delta["text"]
        self._texts.append(text)
        if "toolUse" in delta:
            yield self._named("response.function_call_arguments.delta", delta=text)
        elif text:
            yield self._part("response.output_text.delta", delta=text, logprobs=_briefly(self._told.take()))

    def _done(self, status: str) -> Iterator[dict[str, Any]]:
        item, text = self._items[-1], "".join(self._texts)
        item["status"] = status
        if item["type"] == "function_call":
            item["arguments"] = text
            yield self._named("response.function_call_arguments.done", arguments=text, name=item["name"])
        else:
            part = _output_text(text, self._told.every)
            item["content"] = [part]
            yield self._part("response.output_text.done", text=text, logprobs=_briefly(self._told.every))
            yield self._part("response.content_part.done", part=part)
        yield self._of_item("response.output_item.done", item=item)

    def _part(self, kind: str, **members: Any) -> dict[str, Any]:
        return self._named(kind, content_index=0, **members)

    def _named(self, kind: str, **members: Any) -> dict[str, Any]:
        return self._of_item(kind, item_id=self._items[-1]["id"], **members)

    def _of_item(self, kind: str, **members: Any) -> dict[str, Any]:
        return self._event(kind, output_index=len(self._items) - 1, **members)

    def _event(self, kind: str, **members: Any) -> dict[str, Any]:
        number = self._number
        self._number += 1
        return {"type": kind, "sequence_number": number, **members}

    def _failure(self, error: ApiError) -> bytes:
        told = errors.body_of(error)["error"]
        assert isinstance(told, dict)
        members = {name: told[name] for name in ("code", "message", "param")}
        return _frame(self._event("error", **members))

    # -- the response ------------------------------------------------------------------------------

    def _response(self, status: str) -> dict[str, Any]:
        asked = self._request
        text_format = asked.text.format if asked.text is not None else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": asked.model,
            "output": [dict(item) for item in self._items],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": asked.service_tier or "default",
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"} if text_format is None else text_format},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None if status == "in_progress" else self._usage(),
            "user": asked.user,
        }

    def _usage(self) -> dict[str, Any]:
        last = self._last
        assert last is not None
        return {
            "input_tokens": last.prompt,
            "input_tokens_details": {"cached_tokens": last.cached, "cache_write_tokens": last.stored},
            "output_tokens": last.generated,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": last.prompt + last.generated,
        }


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(24)}"


def _output_text(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _briefly(logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As events of a text have them: without the tokens' bytes, by openai-python's types."""
    return [
        {**_brief(each), "top_logprobs": [_brief(likely) for likely in each["top_logprobs"]]}
        for each in logprobs
    ]


def _brief(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"]}


def _frame(event: dict[str, Any]) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + _encode(event) + b"\n\n"
