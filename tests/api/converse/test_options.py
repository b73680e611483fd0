"""Fields beside the conversation: sampling, JSON output, cache points, tiers, what is not offered."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from outcrop.engine.client import FinishReason

from ..doubles import Script, ScriptedEngine
from ..server import Server, running
from ..shapes import RUNTIME, assert_fits
from .requests import MODEL, TEXT, TOOLS, WEATHER, converse, converse_stream, message_of, user

EXTRAS = {
    "top_k": 5,
    "seed": 3,
    "min_p": 0.1,
    "repetition_penalty": 1.5,
    "presence_penalty": -1,
    "frequency_penalty": 2,
    "logit_bias": {"65": -100, "0": 1.5},
}


def test_additional_fields(http: httpx.Client, server: Server) -> None:
    converse(http, additionalModelRequestFields=EXTRAS)
    http.post(f"/model/{MODEL}/invoke", json={"prompt": "x", **EXTRAS})
    for request in server.engine.requests:
        sampling = request.sampling
        assert (sampling.top_k, sampling.seed, sampling.min_p) == (5, 3, 0.1)
        assert (sampling.repetition_penalty, sampling.presence_penalty) == (1.5, -1)
        assert (sampling.frequency_penalty, sampling.logit_bias) == (2, {65: -100.0, 0: 1.5})


def test_stop_sequences_of_a_native_body(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=(b"one", b" two", b" three"))
    body = http.post(f"/model/{MODEL}/invoke", json={"prompt": "x", "stop_sequences": [" two"]}).json()
    assert (body["generation"], body["stop_reason"]) == ("one", "stop")


def test_tokens_that_come_with_a_stop_sequence_and_after_it_are_not_used(
    http: httpx.Client, server: Server
) -> None:
    server.engine.script = Script(pieces=(b"one", b" two three"))
    for stop, tokens in ((" t", 5), ("o", 1), ("e", 3), ("x", 14)):
        body = http.post(f"/model/{MODEL}/invoke", json={"prompt": "x", "stop_sequences": [stop]}).json()
        assert body["generation_token_count"] == tokens


@pytest.mark.parametrize(
    ("stop", "problem"),
    [
        (" two", "#/stop_sequences: expected type: JSONArray, found: String"),
        ([""], "#/stop_sequences/0: expected minLength: 1, actual: 0"),
        (["a"] * 2501, "#/stop_sequences: expected maximum item count: 2500, found: 2501"),
        (["a" * 25_001], "#/stop_sequences: expected at most 25000 characters in all, found: 25001"),
    ],
)
def test_stop_sequences_that_are_wrong(http: httpx.Client, stop: Any, problem: str) -> None:
    answer = http.post(f"/model/{MODEL}/invoke", json={"prompt": "x", "stop_sequences": stop})
    assert problem in message_of(answer)


WRONG = {
    "an unknown one": ({"top_n": 1}, "#: extraneous key [top_n] is not permitted"),
    "no object": ([1], "#: expected type: JSONObject, found: JSONArray"),
    "too small": ({"repetition_penalty": 0}, "#/repetition_penalty: 0 is not greater or equal to 0.01"),
    "no number": ({"min_p": "1"}, "#/min_p: expected type: Number, found: String"),
    "no token": ({"logit_bias": {"257": 1}}, "#/logit_bias: extraneous key [257] is not permitted"),
    "no token id": ({"logit_bias": {"a": 1}}, "#/logit_bias: extraneous key [a] is not permitted"),
    "a large bias": ({"logit_bias": {"1": 101}}, "#/logit_bias/1: 101 is not less or equal to 100"),
    "no map": ({"logit_bias": 1}, "#/logit_bias: expected type: JSONObject, found: Integer"),
    "many": (
        {"logit_bias": {str(n): 1 for n in range(1025)}},
        "#/logit_bias: maximum size: [1024], found: [1025]",
    ),
}


@pytest.mark.parametrize(("fields", "problem"), WRONG.values(), ids=WRONG)
def test_additional_fields_that_are_wrong(http: httpx.Client, fields: Any, problem: str) -> None:
    assert message_of(converse(http, additionalModelRequestFields=fields)) == (
        f"The model returned the following errors: Malformed input request: {problem}, "
        "please reformat your input and try again."
    )


def text_format(schema: str) -> dict[str, Any]:
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": schema}}}}


SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


@pytest.mark.parametrize(
    ("said", "finish", "reason"),
    [
        (b'{"a": 1}', FinishReason.EOS, "end_turn"),
        (b'{"a": 1e999}', FinishReason.EOS, "end_turn"),
        (b'{"a": 1', FinishReason.EOS, "malformed_model_output"),
        (b'{"a": 1', FinishReason.LENGTH, "max_tokens"),
        (b'{"a": 1}', FinishReason.LENGTH, "max_tokens"),
    ],
)
def test_json_output(
    http: httpx.Client, server: Server, said: bytes, finish: FinishReason, reason: str
) -> None:
    server.engine.script = Script(pieces=(said,), finish=finish)
    body = converse(http, outputConfig=text_format(SCHEMA)).json()
    assert_fits(body, RUNTIME.operation_model("Converse").output_shape)
    assert body["output"]["message"]["content"] == [{"text": said.decode()}]
    assert body["stopReason"] == reason
    assert server.engine.requests[-1].sampling.grammar
    events = converse_stream(http, outputConfig=text_format(SCHEMA))
    assert events[-2] == ("messageStop", {"stopReason": reason})


@pytest.mark.parametrize("schema", ["{", "[]", '{"type": "nothing"}', '{"not": {}}', "x" * 100_000])
def test_schemas_that_no_answer_can_be_held_to(http: httpx.Client, server: Server, schema: str) -> None:
    for _ in range(2):  # what is known of a schema is remembered
        message = message_of(converse(http, outputConfig=text_format(schema)))
        assert message.startswith(
            "The JSON schema at outputConfig.textFormat.structure.jsonSchema.schema is invalid: "
        )
    assert not server.engine.requests


def test_json_output_and_tools(http: httpx.Client) -> None:
    assert message_of(converse(http, toolConfig=TOOLS, outputConfig=text_format(SCHEMA))) == (
        "The outputConfig.textFormat field can't be used together with toolConfig. "
        "Remove one of them and try again."
    )


POINT = {"cachePoint": {"type": "default"}}
MARKED: dict[str, dict[str, Any]] = {
    "a message": {"messages": [user(TEXT, POINT)]},
    "the system prompt": {"system": [{"text": "x"}, POINT]},
    "the tools": {"toolConfig": {"tools": [WEATHER, POINT]}},
}


# An engine that holds more than it serves: a prompt's last block, computed again for its last token.
@pytest.mark.parametrize("held", [0, 8])
@pytest.mark.parametrize("fields", MARKED.values(), ids=MARKED)
def test_cache_points(fields: dict[str, Any], held: int) -> None:
    engine = ScriptedEngine(script=Script(cached=4, held=held))
    with running(engine, cache_block=4) as server, httpx.Client(base_url=server.url) as http:
        usage = converse(http, **fields).json()["usage"]
        plain = converse(http).json()["usage"]
    prompt = len(engine.requests[0].prompt)
    stored = prompt // 4 * 4 - max(held, 4)
    assert usage["inputTokens"] + 4 + stored == prompt
    assert (usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]) == (4, stored)
    assert usage["totalTokens"] == prompt + usage["outputTokens"]
    assert "cacheDetails" not in usage
    assert plain.keys() == {"inputTokens", "outputTokens", "totalTokens"}
    assert plain["inputTokens"] == len(engine.requests[1].prompt)


def test_cache_counts_of_invoke_model() -> None:
    """Who reads the three headers adds them up to the prompt."""
    engine = ScriptedEngine(script=Script(cached=4))
    with running(engine, cache_block=4) as server, httpx.Client(base_url=server.url) as http:
        headers = http.post(f"/model/{MODEL}/invoke", json={"prompt": "x" * 13}).headers
    assert headers["x-amzn-bedrock-input-token-count"] == "13"
    assert headers["x-amzn-bedrock-cache-read-input-token-count"] == "0"
    assert headers["x-amzn-bedrock-cache-write-input-token-count"] == "0"


def test_service_tiers(http: httpx.Client, server: Server) -> None:
    for tier in ("flex", "default", "priority", "reserved"):
        assert converse(http, serviceTier={"type": tier}).json()["serviceTier"] == {"type": tier}
        response = http.post(
            f"/model/{MODEL}/invoke", json={"prompt": "x"}, headers={"x-amzn-bedrock-service-tier": tier}
        )
        assert response.headers["x-amzn-bedrock-service-tier"] == tier
    converse(http)
    *ranked, untiered = [request.priority for request in server.engine.requests]
    assert ranked[::2] == ranked[1::2] == sorted(set(ranked))
    assert untiered == ranked[2] == 0


def test_native_fields_in_the_answer(http: httpx.Client) -> None:
    paths = ["/generation", "/prompt_token_count", "/generation_token_count", "/nothing", "/stop_reason/x"]
    body = converse(http, additionalModelResponseFieldPaths=paths).json()
    assert body["additionalModelResponseFields"] == {
        "generation": "Hello, world",
        "prompt_token_count": 9,
        "generation_token_count": 13,
    }


@pytest.mark.parametrize(
    ("metadata", "status"),
    [('{"team": "a"}', 200), ("", 200), ("{", 400), ("[]", 400), ('{"a": 1}', 400), ("x" * 8501, 400)],
)
def test_request_metadata_of_invoke_model(http: httpx.Client, metadata: str, status: int) -> None:
    headers = {"x-amzn-bedrock-request-metadata": metadata}
    response = http.post(f"/model/{MODEL}/invoke", json={"prompt": "x"}, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amzn-bedrock-guardrailidentifier": "A b"},
        {"x-amzn-bedrock-guardrailversion": "draft"},
        {"x-amzn-bedrock-trace": "on"},
        {"x-amzn-bedrock-performanceconfig-latency": "fast"},
        {"x-amzn-bedrock-service-tier": "gold"},
    ],
)
def test_headers_outside_the_service_model(http: httpx.Client, headers: dict[str, str]) -> None:
    for verb in ("invoke", "invoke-with-response-stream"):
        response = http.post(f"/model/{MODEL}/{verb}", json={"prompt": "x"}, headers=headers)
        assert message_of(response).startswith("1 validation error detected: Value ")
