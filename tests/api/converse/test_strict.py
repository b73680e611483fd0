"""Strict mode: what works here works with Llama on Bedrock."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from outcrop.api.admission import ApiLimits

from ..doubles import ScriptedEngine
from ..server import Server, running
from .requests import MODEL, TEXT, TOOLS, assistant, call, converse, message_of, result, user

PROFILE = f"us.{MODEL}"
CACHE_POINT = {"cachePoint": {"type": "default"}}


def unsupported(field: str) -> str:
    return f"This model doesn't support the {field} field. Remove {field} and try again."


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "no alternation": ([user(TEXT), user(TEXT)], {},
        "A conversation must alternate between user and assistant roles. "
        "Make sure the conversation alternates between user and assistant roles and try again."),
    "a system message on the way": ([user(TEXT), {"role": "system", "content": [TEXT]}], {},
        "1 validation error detected: Value 'system' at 'messages.2.member.role' failed to satisfy "
        "constraint: Member must satisfy enum value set: [user, assistant]"),
    "a cache point": ([user(TEXT, CACHE_POINT)], {}, unsupported("cachePoint")),
    "a cache point in the system prompt": ([user(TEXT)], {"system": [TEXT, CACHE_POINT]},
        unsupported("cachePoint")),
    "stop sequences": ([user(TEXT)], {"inferenceConfig": {"stopSequences": ["x"]}},
        unsupported("stopSequences")),
    "JSON output": ([user(TEXT)], {"outputConfig": {"textFormat": {"type": "json_schema",
        "structure": {"jsonSchema": {"schema": "{}"}}}}}, unsupported("outputConfig.textFormat")),
    "a forced choice": ([user(TEXT)], {"toolConfig": TOOLS | {"toolChoice": {"any": {}}}},
        unsupported("toolConfig.toolChoice.any")),
    "a choice": ([user(TEXT)], {"toolConfig": TOOLS | {"toolChoice": {"tool": {"name": "weather"}}}},
        unsupported("toolConfig.toolChoice.tool")),
    "a strict tool": ([user(TEXT)],
        {"toolConfig": {"tools": [{"toolSpec": TOOLS["tools"][0]["toolSpec"] | {"strict": True}}]}},
        unsupported("toolConfig.tools.0.toolSpec.strict")),
    "a schema of no type": ([user(TEXT)],
        {"toolConfig": {"tools": [{"toolSpec": {"name": "x", "inputSchema": {"json": {}}}}]}},
        "The value at toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: "
        "object."),
    "text and a call": ([user(TEXT), assistant(TEXT, call("a")), user(result("a"))], {"toolConfig": TOOLS},
        "messages.1.content: Conversation blocks and tool use blocks cannot be provided in the same turn"),
    "text and a result": ([user(TEXT), assistant(call("a")), user(TEXT, result("a"))], {"toolConfig": TOOLS},
        "Conversation blocks and tool result blocks cannot be provided in the same turn."),
    "reasoning": ([user(TEXT),
        assistant(TEXT, {"reasoningContent": {"reasoningText": {"text": "hm"}}}), user(TEXT)], {},
        "User messages cannot contain reasoning content. "
        "Please remove the reasoning content and try again."),
    "sampling fields": ([user(TEXT)], {"additionalModelRequestFields": {"top_k": 1}},
        "The model returned the following errors: Malformed input request: "
        "#: extraneous key [top_k] is not permitted, please reformat your input and try again."),
    "more tokens than it writes": ([user(TEXT)], {"inferenceConfig": {"maxTokens": 4097}},
        "The maximum tokens you requested exceeds the model limit of 4096. "
        "Try again with a maximum tokens value that is lower than 4096."),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "fields", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(
    http: httpx.Client, server: Server, messages: list[Any], fields: dict[str, Any], message: str
) -> None:
    assert message_of(converse(http, *messages, strict=True, model=PROFILE, **fields)) == message
    assert not server.engine.requests


@pytest.mark.parametrize("name", [name for name in REFUSED if "tokens" not in name])
def test_accepted_by_default(http: httpx.Client, name: str) -> None:
    messages, fields, _ = REFUSED[name]
    response = converse(http, *messages, **fields)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("model", "status", "code", "message"),
    [
        (MODEL, 400, "ValidationException",
            f"Invocation of model ID {MODEL} with on-demand throughput isn’t supported. Retry your request "
            "with the ID or ARN of an inference profile that contains this model."),
        ("us.meta.llama3-2-1b-instruct-v1:0", 404, "ResourceNotFoundException",
            "This model version has reached the end of its life. "
            "Please refer to the AWS documentation for more details."),
    ],
)  # fmt: skip
def test_models(http: httpx.Client, model: str, status: int, code: str, message: str) -> None:
    for verb, body in (("converse", {"messages": [user(TEXT)]}), ("invoke", {"prompt": "x"})):
        response = http.post(f"/model/{model}/{verb}", json=body, headers={"x-outcrop-strict": "true"})
        assert (response.status_code, response.headers["x-amzn-errortype"]) == (status, code)
        assert response.json()["message"] == message
    assert converse(http, model=model).status_code == 200


def test_tools_of_llama_3(http: httpx.Client) -> None:
    message = message_of(converse(http, strict=True, model="meta.llama3-8b-instruct-v1:0", toolConfig=TOOLS))
    assert message == "This model doesn't support tool use."


def test_tools_in_a_stream(http: httpx.Client) -> None:
    response = http.post(
        f"/model/{PROFILE}/converse-stream",
        json={"messages": [user(TEXT)], "toolConfig": TOOLS},
        headers={"x-outcrop-strict": "TRUE"},
    )
    assert message_of(response) == "This model doesn't support tool use in streaming mode."


def test_native_bodies_and_token_counts(http: httpx.Client) -> None:
    strict = {"x-outcrop-strict": "true"}
    native = http.post(f"/model/{PROFILE}/invoke", json={"prompt": "x", "top_k": 1}, headers=strict)
    assert "extraneous key [top_k] is not permitted" in message_of(native)
    counted = http.post(f"/model/{PROFILE}/count-tokens", json={"input": {}}, headers=strict)
    assert "doesn't support counting tokens" in message_of(counted)


def test_what_llama_does_works(http: httpx.Client) -> None:
    history = [user(TEXT), assistant(call("a")), user(result("a", {"text": "rain"}))]
    response = converse(http, *history, strict=True, model=PROFILE, toolConfig=TOOLS, system=[TEXT])
    assert response.status_code == 200, response.text


def test_a_strict_server() -> None:
    limits = ApiLimits(strict=True)
    with running(ScriptedEngine(), limits=limits) as server, httpx.Client(base_url=server.url) as http:
        assert converse(http, user(TEXT, CACHE_POINT), model=PROFILE).status_code == 400
        assert converse(http, user(TEXT, CACHE_POINT), model=PROFILE, strict=False).status_code == 200


def test_a_header_that_says_neither(http: httpx.Client) -> None:
    response = http.post(f"/model/{MODEL}/converse", json={}, headers={"x-outcrop-strict": "yes"})
    assert message_of(response) == "The value of the x-outcrop-strict header must be true or false."
