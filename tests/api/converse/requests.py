"""Parts of Converse requests, and ways to send them."""

from __future__ import annotations

import json
from typing import Any

import httpx
from botocore.eventstream import EventStreamBuffer

MODEL = "meta.llama3-1-8b-instruct-v1:0"
TEXT = {"text": "Hi"}
WEATHER = {
    "toolSpec": {
        "name": "weather",
        "description": "The weather of a city",
        "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
}
TOOLS = {"tools": [WEATHER]}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def call(tool_use_id: str, **arguments: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": tool_use_id, "name": "weather", "input": arguments}}


def result(tool_use_id: str, *content: Any, **more: Any) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": tool_use_id, "content": list(content), **more}}


def document(name: str, **source: Any) -> dict[str, Any]:
    return {"document": {"name": name, "source": source}}


def converse(
    http: httpx.Client, *messages: Any, strict: bool | None = None, model: str = MODEL, **fields: Any
) -> httpx.Response:
    """A Converse call; without messages, one of a user who says Hi."""
    headers = {} if strict is None else {"x-outcrop-strict": str(strict).lower()}
    body = {"messages": messages or [user(TEXT)], **fields}
    return http.post(f"/model/{model}/converse", json=body, headers=headers)


def converse_stream(http: httpx.Client, *messages: Any, **fields: Any) -> list[tuple[str, Any]]:
    """The events of a ConverseStream call."""
    body = {"messages": messages or [user(TEXT)], **fields}
    response = http.post(f"/model/{MODEL}/converse-stream", json=body)
    assert response.status_code == 200, response.text
    buffer = EventStreamBuffer()
    buffer.add_data(response.content)
    return [(event.headers[":event-type"], json.loads(event.payload)) for event in buffer]


def message_of(response: httpx.Response) -> str:
    """The message of a refusal."""
    assert response.status_code == 400, response.text
    assert response.headers["x-amzn-errortype"] == "ValidationException"
    message: str = response.json()["message"]
    return message
