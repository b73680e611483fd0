"""Answers as they are on the wire, against the service's own model."""

from __future__ import annotations

import base64
import json
import re

import httpx
import pytest
from botocore.eventstream import EventStreamBuffer, EventStreamMessage

from outcrop.api.errors import ApiError
from outcrop.api.shapes import Must
from outcrop.api.smithy import Constraints
from outcrop.engine.client import EngineUnavailable, FinishReason, ModelFailure

from .doubles import Script
from .server import Server
from .shapes import CONTROL, RUNTIME, assert_fits

MODEL = "meta.llama3-8b-instruct-v1:0"
HELLO = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
EVERYTHING = HELLO | {
    "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default", "ttl": "5m"}}],
    "inferenceConfig": {"maxTokens": 20, "temperature": 0, "topP": 1, "stopSequences": ["wor"]},
    "additionalModelRequestFields": {"top_k": 5, "seed": 3},
    "additionalModelResponseFieldPaths": ["/stop_reason", "/nothing/here"],
    "requestMetadata": {"team": "a b"},
    "performanceConfig": {"latency": "optimized"},
    "serviceTier": {"type": "flex"},
    "guardrailConfig": {"trace": "disabled"},
    "toolConfig": None,
    "outputConfig": {"effort": ""},
    "promptVariables": {},
}


def events(response: httpx.Response) -> list[EventStreamMessage]:
    buffer = EventStreamBuffer()
    buffer.add_data(response.content)
    return list(buffer)


@pytest.mark.parametrize("body", [HELLO, EVERYTHING])
def test_converse(http: httpx.Client, body: dict[str, object]) -> None:
    response = http.post(f"/model/{MODEL}/converse", json=body)
    assert_fits(response.json(), RUNTIME.operation_model("Converse").output_shape)


def test_everything_a_converse_request_may_ask_for(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(cached=4)
    body = http.post(f"/model/{MODEL}/converse", json=EVERYTHING).json()
    prompt = len("system: Be brief.\nuser: Hi\n")
    assert body["output"]["message"]["content"] == [{"text": "Hello, "}]
    assert body["stopReason"] == "stop_sequence"
    assert body["additionalModelResponseFields"] == {"stop_reason": "stop"}
    assert body["performanceConfig"] == {"latency": "optimized"}
    assert body["serviceTier"] == {"type": "flex"}
    assert body["usage"] == {
        "inputTokens": prompt - 4,
        "cacheReadInputTokens": 4,
        "cacheWriteInputTokens": 0,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 0}],
        "outputTokens": 10,
        "totalTokens": prompt + 10,
    }
    sampling = server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0, 1, 5, 3)
    assert (sampling.max_tokens, sampling.eos_ids) == (20, (256,))


@pytest.mark.parametrize("body", [HELLO, EVERYTHING])
def test_converse_stream(http: httpx.Client, body: dict[str, object]) -> None:
    response = http.post(f"/model/{MODEL}/converse-stream", json=body)
    shape = RUNTIME.operation_model("ConverseStream").output_shape.members["stream"]
    found = events(response)
    for event in found:
        assert_fits(json.loads(event.payload), shape.members[event.headers[":event-type"]])
    assert [event.headers[":event-type"] for event in found][-3:] == [
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]


def test_invoke_stream_chunks(http: httpx.Client) -> None:
    response = http.post(f"/model/{MODEL}/invoke-with-response-stream", json={"prompt": "Hi"})
    assert response.headers["x-amzn-bedrock-content-type"] == "application/json"
    payloads = [json.loads(event.payload) for event in events(response)]
    chunks = [json.loads(base64.b64decode(payload["bytes"])) for payload in payloads]
    metrics = chunks[-1].pop("amazon-bedrock-invocationMetrics")
    assert chunks == [
        {"generation": "Hello", "prompt_token_count": 2, "generation_token_count": 5, "stop_reason": None},
        {"generation": ", ", "prompt_token_count": None, "generation_token_count": 7, "stop_reason": None},
        {
            "generation": "world",
            "prompt_token_count": None,
            "generation_token_count": 12,
            "stop_reason": None,
        },
        {"generation": "", "prompt_token_count": None, "generation_token_count": 13, "stop_reason": "stop"},
    ]
    assert (metrics["inputTokenCount"], metrics["outputTokenCount"]) == (2, 13)
    assert 0 <= metrics["firstByteLatency"] <= metrics["invocationLatency"]


def test_text_that_is_not_complete_is_held_back(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=("é".encode()[:1], "é".encode()[1:], b"!"))
    found = events(http.post(f"/model/{MODEL}/converse-stream", json=HELLO))
    payloads = [json.loads(event.payload) for event in found]
    assert [payload["delta"]["text"] for payload in payloads if "delta" in payload] == ["é", "!"]


def test_an_answer_without_text(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(pieces=())
    body = http.post(f"/model/{MODEL}/converse", json=HELLO).json()
    assert body["output"]["message"]["content"] == [{"text": ""}]
    assert body["usage"]["outputTokens"] == 1
    found = events(http.post(f"/model/{MODEL}/converse-stream", json=HELLO))
    assert [event.headers[":event-type"] for event in found] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]


@pytest.mark.parametrize(
    ("error", "name", "members"),
    [
        (
            ModelFailure("row 3"),
            "modelStreamErrorException",
            {"originalStatusCode": 500, "originalMessage": "The model failed while processing your request."},
        ),
        (EngineUnavailable("gone"), "serviceUnavailableException", {}),
        (ValueError("bug"), "internalServerException", {}),
    ],
)
@pytest.mark.parametrize("verb", ["converse-stream", "invoke-with-response-stream"])
def test_an_error_within_a_stream_is_its_last_event(
    http: httpx.Client, server: Server, error: Exception, name: str, members: dict[str, object], verb: str
) -> None:
    server.engine.script = Script(error=error, fail_after=1)
    body = HELLO if verb == "converse-stream" else {"prompt": "Hi"}
    response = http.post(f"/model/{MODEL}/{verb}", json=body)
    assert response.status_code == 200
    last = events(response)[-1]
    assert last.headers[":message-type"] == "exception"
    assert last.headers[":exception-type"] == name
    payload = json.loads(last.payload)
    operation = "ConverseStream" if verb == "converse-stream" else "InvokeModelWithResponseStream"
    stream = next(iter(RUNTIME.operation_model(operation).output_shape.members.values()))
    assert_fits(payload, stream.members[name])
    assert payload.pop("message")
    assert payload == members


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelFailure("x"), 424, "ModelErrorException"),
        (EngineUnavailable("x"), 503, "ServiceUnavailableException"),
    ],
)
@pytest.mark.parametrize("verb", ["converse", "converse-stream"])
def test_an_error_before_a_stream_is_an_http_error(
    http: httpx.Client, server: Server, error: Exception, status: int, code: str, verb: str
) -> None:
    server.engine.script = Script(error=error)
    response = http.post(f"/model/{MODEL}/{verb}", json=HELLO)
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (status, code)
    assert_fits(response.json(), RUNTIME.shape_for(code))
    if status == 424:
        assert response.json()["resourceName"] == f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"


@pytest.mark.parametrize(
    ("finish", "converse", "native"),
    [
        (FinishReason.EOS, "end_turn", "stop"),
        (FinishReason.LENGTH, "max_tokens", "length"),
        (FinishReason.CONTEXT, "model_context_window_exceeded", "length"),
    ],
)
def test_stop_reasons(
    http: httpx.Client, server: Server, finish: FinishReason, converse: str, native: str
) -> None:
    server.engine.script = Script(finish=finish)
    assert http.post(f"/model/{MODEL}/converse", json=HELLO).json()["stopReason"] == converse
    assert http.post(f"/model/{MODEL}/invoke", json={"prompt": "a"}).json()["stop_reason"] == native


def test_the_control_plane(http: httpx.Client) -> None:
    listed = http.get("/foundation-models").json()
    assert_fits(listed, CONTROL.operation_model("ListFoundationModels").output_shape)
    found = http.get(f"/foundation-models/{MODEL}").json()
    assert_fits(found, CONTROL.operation_model("GetFoundationModel").output_shape)
    assert found["modelDetails"] in listed["modelSummaries"]


@pytest.mark.parametrize(
    ("query", "path", "allowed"),
    [
        ({"byOutputModality": "SOUND"}, "byOutputModality", "TEXT, IMAGE, EMBEDDING"),
        ({"byInferenceType": "FREE"}, "byInferenceType", "ON_DEMAND, PROVISIONED"),
        (
            {"byCustomizationType": "X"},
            "byCustomizationType",
            "FINE_TUNING, CONTINUED_PRE_TRAINING, DISTILLATION",
        ),
    ],
)
def test_filters_outside_the_service_model(
    http: httpx.Client, query: dict[str, str], path: str, allowed: str
) -> None:
    response = http.get("/foundation-models", params=query)
    assert response.status_code == 400
    assert response.json()["message"] == (
        f"1 validation error detected: Value '{query[path]}' at '{path}' failed to satisfy constraint: "
        f"Member must satisfy enum value set: [{allowed}]"
    )


def test_filters(http: httpx.Client) -> None:
    def count(**query: str) -> int:
        return len(http.get("/foundation-models", params=query).json()["modelSummaries"])

    everything = count()
    assert everything > 1
    assert count(byProvider="META", byOutputModality="TEXT", byInferenceType="ON_DEMAND") == everything
    assert count(byProvider="Cohere") == 0
    assert count(byOutputModality="IMAGE") == 0
    assert count(byInferenceType="PROVISIONED") == 0
    assert count(byCustomizationType="FINE_TUNING") == 0
    assert http.get("/foundation-models", params={"byProvider": "a/b"}).status_code == 400


def test_a_whole_body_of_text_meets_no_pattern() -> None:
    """It is refused for its length, and some patterns take a hundred times its memory."""
    length = "have length less than or equal to 3"
    pattern = "satisfy regular expression pattern: a+"
    for text, rules in (("bbb", [pattern]), ("bbbb", [length, pattern]), ("b" * 100_000, [length])):
        constraints = Constraints()
        Must(size=(1, 3), pattern=re.compile("a+")).check(constraints, ("name",), text)
        with pytest.raises(ApiError) as error:
            constraints.raise_if_violated()
        assert [rule for rule in (length, pattern) if rule in error.value.message] == rules
    unbounded = Constraints()
    Must(pattern=re.compile("a+")).check(unbounded, ("name",), "b" * 100_000)
    with pytest.raises(ApiError, match=r"a\+"):
        unbounded.raise_if_violated()
