"""One small request of each family, and how their answers are read."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
from botocore.eventstream import EventStreamBuffer

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
TITAN = "amazon.titan-text-express-v1"
COMMAND = "cohere.command-r-plus-v1:0"
JURASSIC = "ai21.j2-ultra-v1"
JAMBA = "ai21.jamba-1-5-mini-v1:0"
MISTRAL = "mistral.mistral-7b-instruct-v0:2"
MISTRAL_CHAT = "mistral.mistral-large-2407-v1:0"
GPT_OSS = "openai.gpt-oss-20b-1:0"

HI = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CLAUDE: {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 20, "messages": HI},
    TITAN: {"inputText": "Hi"},
    COMMAND: {"message": "Hi"},
    JURASSIC: {"prompt": "Hi"},
    JAMBA: {"messages": HI},
    MISTRAL: {"prompt": "<s>[INST] Hi [/INST]"},
    MISTRAL_CHAT: {"messages": HI},
    GPT_OSS: {"messages": HI},
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TOOLS: dict[str, dict[str, Any]] = {
    CLAUDE: {"tools": [{"name": "weather", "input_schema": SCHEMA}]},
    COMMAND: {"tools": [{"name": "weather", "parameter_definitions": {"city": {"type": "str"}}}]},
    JAMBA: {"tools": [FUNCTION]},
    MISTRAL_CHAT: {"tools": [FUNCTION]},
    GPT_OSS: {"tools": [FUNCTION]},
}


def invoke(http: httpx.Client, family: str, **more: Any) -> httpx.Response:
    return http.post(f"/model/{family}/invoke", json=BODIES[family] | more)


def chunks(http: httpx.Client, model: str, **more: Any) -> list[dict[str, Any]]:
    """The objects of a stream."""
    return objects(http.post(f"/model/{model}/invoke-with-response-stream", json=BODIES[model] | more))


def objects(response: httpx.Response) -> list[dict[str, Any]]:
    """Those of an answer that is a stream."""
    assert response.status_code == 200, response.text
    buffer = EventStreamBuffer()
    buffer.add_data(response.content)
    found = []
    for event in buffer:
        assert event.headers[":event-type"] == "chunk"
        found.append(json.loads(base64.b64decode(json.loads(event.payload)["bytes"])))
    return found


def without_metrics(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stream's objects without the metrics, which the last of them alone has."""
    assert not any("amazon-bedrock-invocationMetrics" in chunk for chunk in found[:-1])
    metrics = found[-1].pop("amazon-bedrock-invocationMetrics")
    assert metrics.keys() == {
        "inputTokenCount",
        "outputTokenCount",
        "invocationLatency",
        "firstByteLatency",
    }
    return found
