"""Requests and answers as the bodies of a log record."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from outcrop.api import eventstream

_DOCUMENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

Json = Any


def parsed(body: bytes | bytearray) -> Json:
    """JSON as it is; what is none, or has numbers that no float can be, as text."""
    try:
        return _DOCUMENT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")


def without_documents(conversation: Json) -> Json:
    """A Converse request without the bytes of its documents."""
    if isinstance(conversation, dict):
        return {
            name: _without_bytes(value) if name == "document" else without_documents(value)
            for name, value in conversation.items()
        }
    return list(map(without_documents, conversation)) if isinstance(conversation, list) else conversation


def _without_bytes(document: Json) -> Json:
    source = document.get("source") if isinstance(document, dict) else None
    if not isinstance(source, dict) or "bytes" not in source:
        return document
    return {**document, "source": {name: value for name, value in source.items() if name != "bytes"}}


def stream_body(content_type: str, answer: bytes) -> tuple[Json, str]:
    """What an answer was, and the code of the error that ended it, "" for none. ConverseStream's events are
    put together to what Converse would have answered; the chunks of other streams are a list."""
    if content_type == eventstream.CONTENT_TYPE:
        return _of_events(answer)
    if content_type.startswith("text/event-stream"):
        return list(_server_sent(answer)), ""
    return parsed(answer), ""


def _of_events(answer: bytes) -> tuple[Json, str]:
    events, code = [], ""
    for kind, message in eventstream.split(answer):
        body = _DOCUMENT.decode(eventstream.payload(message))
        if kind:
            events.append((kind, body))
        else:
            name = eventstream.exception_type(message)
            code = name[:1].upper() + name[1:]
    if all(kind == "chunk" for kind, _ in events):
        return [parsed(base64.b64decode(body["bytes"])) for _, body in events], code
    return _conversation(events), code


def _conversation(events: list[tuple[str, Json]]) -> Json:
    blocks: dict[int, dict[str, Any]] = {}
    answer: dict[str, Any] = {}
    role = "assistant"
    for kind, body in events:
        match kind:
            case "messageStart":
                role = body["role"]
            case "contentBlockStart":
                blocks[body["contentBlockIndex"]] = {"toolUse": {**body["start"]["toolUse"], "input": ""}}
            case "contentBlockDelta":
                _grow(blocks.setdefault(body["contentBlockIndex"], {}), body["delta"])
            case "messageStop" | "metadata":
                answer |= body
    content = [_whole(blocks[index]) for index in sorted(blocks)]
    return {"output": {"message": {"role": role, "content": content}}, **answer}


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if "toolUse" in delta:
        block["toolUse"]["input"] += delta["toolUse"]["input"]
    elif "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]


def _whole(block: dict[str, Any]) -> dict[str, Any]:
    call = block.get("toolUse")
    return block if call is None else {"toolUse": {**call, "input": parsed(call["input"].encode())}}


def _server_sent(answer: bytes) -> Iterator[Json]:
    for line in answer.split(b"\n"):
        data = line.removeprefix(b"data: ")
        if data is not line and data != line and data != b"[DONE]":
            yield parsed(data)
