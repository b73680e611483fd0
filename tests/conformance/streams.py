"""Event streams, frame by frame: what every streamed answer must look like, whoever asked for it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from botocore.eventstream import EventStreamBuffer
from botocore.model import OperationModel

from ..api.shapes import assert_fits
from .service import UNMODELLED_EVENT_MEMBERS, assert_success, output_stream

CONTENT_TYPE = "application/vnd.amazon.eventstream"


@dataclass(frozen=True, slots=True)
class Event:
    """One frame: the name of its event or exception, and its JSON payload."""

    name: str
    payload: dict[str, Any]
    is_exception: bool = False


def read_events(operation: OperationModel, content: bytes) -> list[Event]:
    """The frames of a stream, which must be whole, with the headers that the protocol asks for and
    payloads that fit the operation's output shape."""
    buffer = EventStreamBuffer()
    buffer.add_data(content)
    shape = operation.output_shape.members[output_stream(operation)]
    events = []
    size = 0
    for message in buffer:
        size += message.prelude.total_length
        kind = message.headers[":message-type"]
        assert kind in ("event", "exception"), message.headers
        name = message.headers[":event-type" if kind == "event" else ":exception-type"]
        assert message.headers[":content-type"] == "application/json"
        assert set(message.headers) == {
            ":message-type",
            f":{kind if kind == 'exception' else 'event'}-type",
            ":content-type",
        }
        assert name in shape.members, f"{operation.name} has no event {name}"
        payload = json.loads(message.payload)
        unmodelled = UNMODELLED_EVENT_MEMBERS if kind == "event" else ()
        assert_fits(payload, shape.members[name], name, unmodelled=unmodelled)
        events.append(Event(name, payload, kind == "exception"))
    assert size == len(content), "the stream ends within a frame"
    assert all(not event.is_exception for event in events[:-1]), "an exception ends a stream"
    return events


@dataclass(slots=True)
class Answer:
    """A conversation's answer put together from its events. A call that was cut off has text as its input."""

    role: str = ""
    content: list[dict[str, Any]] = field(default_factory=list)
    stop: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    exception: Event | None = None


def assemble(events: list[Event]) -> Answer:
    """Checks the order of a conversation's events and puts the answer together.

    messageStart; of each block, in order of its index, contentBlockStart (for tool use alone), deltas and
    contentBlockStop; messageStop; metadata, last. A stream may be broken off anywhere by one exception.
    """
    answer = Answer()
    rest = list(events)
    if rest and rest[-1].is_exception:
        answer.exception = rest.pop()
    assert rest or answer.exception, "the stream is empty"
    broken = answer.exception is not None
    if rest:
        first = rest.pop(0)
        assert first.name == "messageStart", first
        answer.role = first.payload["role"]
    while rest and rest[0].name.startswith("contentBlock"):
        _assemble_block(rest, answer, broken=broken)
    assert [event.name for event in rest] == ["messageStop", "metadata"][: len(rest)], rest
    assert broken or len(rest) == 2, "the stream ends early"
    if rest:
        answer.stop = rest[0].payload
    if len(rest) == 2:
        answer.metadata = rest[1].payload
        usage = answer.metadata["usage"]
        counted = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        assert usage["totalTokens"] == sum(usage.get(name, 0) for name in counted), usage
    if not broken:
        inputs = [block["toolUse"]["input"] for block in answer.content if "toolUse" in block]
        if answer.stop["stopReason"] == "tool_use":
            assert inputs, "tool_use without a call"
            assert all(isinstance(each, dict) for each in inputs), inputs
        assert answer.content, "an answer has a block at least"
    return answer


def _assemble_block(rest: list[Event], answer: Answer, *, broken: bool) -> None:
    """Take one block's events off `rest` and add it to the answer."""
    index = len(answer.content)
    start = None
    if rest[0].name == "contentBlockStart":
        event = rest.pop(0)
        assert event.payload["contentBlockIndex"] == index, event
        start = event.payload["start"]
        assert list(start) == ["toolUse"], "only tool use starts with an event of its own"
    text: list[str] = []
    while rest and rest[0].name == "contentBlockDelta":
        event = rest.pop(0)
        assert event.payload["contentBlockIndex"] == index, event
        delta = event.payload["delta"]
        if start is None:
            text.append(delta["text"])
        else:
            text.append(delta["toolUse"]["input"])
    assert start is not None or text, f"block {index} has neither start nor delta"
    if rest:
        event = rest.pop(0)
        assert event.name == "contentBlockStop", event
        assert event.payload["contentBlockIndex"] == index, event
    else:
        assert broken, f"block {index} does not stop"
        return
    if start is None:
        answer.content.append({"text": "".join(text)})
    else:
        answer.content.append({"toolUse": start["toolUse"] | {"input": _json("".join(text))}})


def _json(text: str) -> Any:
    """A call's input. What is not JSON, because the answer was cut off within it, stays text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def assert_conversation(operation: OperationModel, response: httpx.Response) -> Answer:
    """A whole ConverseStream answer: framing, shapes and order, by frames and by botocore's own parser."""
    parsed = assert_success(operation, response)
    assert response.headers["content-type"] == CONTENT_TYPE
    events = read_events(operation, response.content)
    assert [list(event) for event in parsed["stream"]] == [[event.name] for event in events]
    return assemble(events)


@dataclass(frozen=True, slots=True)
class NativeAnswer:
    """An InvokeModel stream put together: the body that InvokeModel would return, and the metrics."""

    body: dict[str, Any]
    metrics: dict[str, int]


def assert_native(operation: OperationModel, response: httpx.Response) -> NativeAnswer:
    """A whole InvokeModelWithResponseStream answer of a Llama model."""
    parsed = assert_success(operation, response)
    assert response.headers["content-type"] == CONTENT_TYPE
    assert parsed["contentType"] == "application/json"
    events = read_events(operation, response.content)
    chunks = [json.loads(base64.b64decode(event.payload["bytes"])) for event in events]
    assert len(chunks) == len(parsed["body"])
    assert chunks, "the stream is empty"
    assert all(chunk["prompt_token_count"] is None for chunk in chunks[1:])
    assert all(chunk["stop_reason"] is None for chunk in chunks[:-1])
    assert all("amazon-bedrock-invocationMetrics" not in chunk for chunk in chunks[:-1])
    counts = [chunk["generation_token_count"] for chunk in chunks]
    assert counts == sorted(counts)
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    body = {
        "generation": "".join(chunk["generation"] for chunk in chunks),
        "prompt_token_count": chunks[0]["prompt_token_count"],
        "generation_token_count": counts[-1],
        "stop_reason": chunks[-1]["stop_reason"],
    }
    assert (metrics["inputTokenCount"], metrics["outputTokenCount"]) == (
        body["prompt_token_count"],
        body["generation_token_count"],
    )
    return NativeAnswer(body, metrics)
