"""An unmodified boto3 program against a running server: only `endpoint_url` differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from outcrop.engine.client import ModelFailure

from ..api.doubles import Script, ScriptedEngine
from ..api.server import Server, running

MODEL = "meta.llama3-8b-instruct-v1:0"
USER = [{"role": "user", "content": [{"text": "Hi"}]}]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with running(ScriptedEngine(), demo=False, aliases=("llama",)) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.engine.script = Script()
    shared_server.engine.requests.clear()
    return shared_server


def make_client(server: Server, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="module")
def shared_runtime(shared_server: Server) -> Iterator[Any]:
    with closing(make_client(shared_server, "bedrock-runtime")) as client:
        yield client


@pytest.fixture
def runtime(server: Server, shared_runtime: Any) -> Any:
    return shared_runtime


@pytest.fixture(scope="module")
def control(shared_server: Server) -> Iterator[Any]:
    with closing(make_client(shared_server, "bedrock")) as client:
        yield client


def assert_refused(call: Callable[[], object], status: int, code: str, message: str) -> None:
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert response["ResponseMetadata"]["RequestId"]
    assert response["Error"] == {"Code": code, "Message": message}


def invalid(call: Callable[[], object], message: str) -> None:
    assert_refused(call, 400, "ValidationException", message)


def violation(call: Callable[[], object], *problems: str) -> None:
    noun = "error" if len(problems) == 1 else "errors"
    invalid(call, f"{len(problems)} validation {noun} detected: {'; '.join(problems)}")


def test_converse(server: Server, runtime: Any) -> None:
    answer = runtime.converse(modelId=MODEL, messages=USER, system=[], inferenceConfig={})
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": "Hello, world"}]}
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"] == {"inputTokens": 9, "outputTokens": 13, "totalTokens": 22}
    assert answer["metrics"]["latencyMs"] >= 0
    sampling = server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.5, 0.9, 512 - 9)


def test_seeds_differ_unless_given(server: Server, runtime: Any) -> None:
    for _ in range(2):
        runtime.converse(modelId=MODEL, messages=USER)
    first, second = (request.sampling.seed for request in server.engine.requests)
    assert first != second


def test_converse_stream(runtime: Any) -> None:
    stream = list(runtime.converse_stream(modelId=MODEL, messages=USER)["stream"])
    metrics = stream[-1]["metadata"].pop("metrics")
    assert metrics["latencyMs"] >= 0
    assert stream == [
        {"messageStart": {"role": "assistant"}},
        *(
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": text}}}
            for text in ("Hello", ", ", "world")
        ),
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 13, "totalTokens": 22}}},
    ]


def test_invoke_model(server: Server, runtime: Any) -> None:
    answer = runtime.invoke_model(
        modelId=MODEL,
        body=json.dumps({"prompt": "Hi <|eot_id|>", "temperature": 0, "top_p": 1, "max_gen_len": 2048 // 8}),
        serviceTier="flex",
        performanceConfigLatency="standard",
    )
    assert json.loads(answer["body"].read()) == {
        "generation": "Hello, world",
        "prompt_token_count": 13,
        "generation_token_count": 13,
        "stop_reason": "stop",
    }
    assert answer["contentType"] == "application/json"
    assert (answer["serviceTier"], answer["performanceConfigLatency"]) == ("flex", "standard")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-bedrock-input-token-count"] == "13"
    assert headers["x-amzn-bedrock-output-token-count"] == "13"
    assert int(headers["x-amzn-bedrock-invocation-latency"]) >= 0
    sampling = server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0, 1, 256)


def test_native_defaults(server: Server, runtime: Any) -> None:
    runtime.invoke_model(modelId=MODEL, body=b'{"prompt": "a"}')
    sampling = server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.5, 0.9, 512)


def test_invoke_model_with_response_stream(runtime: Any) -> None:
    answer = runtime.invoke_model_with_response_stream(modelId=MODEL, body=b'{"prompt": "Hi"}')
    chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    assert "".join(chunk["generation"] for chunk in chunks) == "Hello, world"
    assert chunks[-1]["stop_reason"] == "stop"
    assert chunks[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 13
    assert answer["contentType"] == "application/json"


def test_a_stop_sequence_ends_the_answer_and_the_work(server: Server, runtime: Any) -> None:
    server.engine.script = Script(pieces=(b"one ", b"two ST", b"OP three", b" four"))
    aborted = server.engine.aborted
    config = {"stopSequences": ["STOP"]}
    answer = runtime.converse(modelId=MODEL, messages=USER, inferenceConfig=config)
    assert answer["output"]["message"]["content"] == [{"text": "one two "}]
    assert (answer["stopReason"], answer["usage"]["outputTokens"]) == ("stop_sequence", 12)
    stream = runtime.converse_stream(modelId=MODEL, messages=USER, inferenceConfig=config)["stream"]
    texts = [event["contentBlockDelta"]["delta"]["text"] for event in stream if "contentBlockDelta" in event]
    assert "".join(texts) == "one two "
    assert (server.engine.aborted, server.engine.open) == (aborted + 2, 0)


def test_a_stream_that_fails(server: Server, runtime: Any) -> None:
    server.engine.script = Script(error=ModelFailure("NaN"), fail_after=1)
    stream = runtime.converse_stream(modelId=MODEL, messages=USER)["stream"]
    with closing(stream), pytest.raises(EventStreamError, match="modelStreamErrorException"):
        list(stream)


@pytest.mark.parametrize(
    "model",
    [
        "llama",
        f"us.{MODEL}",
        f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}",
        f"arn:aws:bedrock:us-west-2:123456789012:inference-profile/eu.{MODEL}",
    ],
)
def test_names_of_a_configured_model(runtime: Any, model: str) -> None:
    assert runtime.converse(modelId=model, messages=USER)["stopReason"] == "end_turn"


@pytest.mark.parametrize("model", ["meta.llama3-70b-instruct-v1:0", "us.other", "../x", "a b"])
def test_unknown_model(runtime: Any, model: str) -> None:
    invalid(
        lambda: runtime.converse(modelId=model, messages=USER), "The provided model identifier is invalid."
    )


def turn(role: str, *blocks: Any) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


TEXT = {"text": "Hi"}
CONVERSATIONS = {
    "none": ([], "A conversation must start with a user message. "
        "Try again with a conversation that starts with a user message."),
    "assistant first": ([turn("assistant", TEXT)], "A conversation must start with a user message. "
        "Try again with a conversation that starts with a user message."),
    "assistant last": ([turn("user", TEXT), turn("assistant", TEXT)],
        "The model that you are using requires the last turn in the conversation to be a user message. "
        "Add a user message to the conversation and try again."),
    "blank text": ([turn("user", TEXT, {"text": " \n"})],
        "The text field in the ContentBlock object at messages.0.content.1 is blank. "
        "Add text to the text field, and try again."),
    "empty content": ([turn("user")],
        "The content field in the Message object at messages.0 is empty. "
        "Add a ContentBlock object to the content field and try again."),
    "only a cache point": ([turn("user", {"cachePoint": {"type": "default"}})],
        "The content field in the Message object at messages.0 is empty. "
        "Add a ContentBlock object to the content field and try again."),
    "image": ([turn("user", TEXT, {"image": {"format": "png", "source": {"bytes": b"x"}}})],
        "This model doesn't support the image content block that you provided. "
        "Update the content block and try again."),
    "document by itself": ([turn("user", {"document": {"name": "x", "source": {"text": "x"}}})],
        "A text block must be included when using documents. Add a text block and retry your request."),
    "tool result": ([turn("user", {"toolResult": {"toolUseId": "x", "content": []}})],
        "The toolConfig field must be defined when using toolUse and toolResult content blocks."),
    "reasoning": ([turn("user", TEXT, {"reasoningContent": {"reasoningText": {"text": "x"}}})],
        "User messages cannot contain reasoning content. "
        "Please remove the reasoning content and try again."),
    "two in one": ([turn("user", {"text": "Hi", "image": {"format": "png", "source": {"bytes": b"x"}}})],
        "ContentBlock object at messages.0.content.0 must set only one of the following keys: text, image, "
        "document, video, audio, toolUse, toolResult, guardContent, cachePoint, reasoningContent, "
        "citationsContent, searchResult, toolAddition, toolRemoval."),
    "none in one": ([turn("user", {})],
        "ContentBlock object at messages.0.content.0 must set one of the following keys: text, image, "
        "document, video, audio, toolUse, toolResult, guardContent, cachePoint, reasoningContent, "
        "citationsContent, searchResult, toolAddition, toolRemoval."),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "message"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_rules_of_a_conversation(runtime: Any, messages: list[Any], message: str) -> None:
    invalid(lambda: runtime.converse(modelId=MODEL, messages=messages), message)
    invalid(lambda: runtime.converse_stream(modelId=MODEL, messages=messages), message)


UNSUPPORTED = {
    "promptVariables": {"x": {"text": "y"}},
    "outputConfig.effort": {"effort": "high"},
}


@pytest.mark.parametrize(("field", "value"), UNSUPPORTED.items(), ids=UNSUPPORTED)
def test_fields_that_would_change_the_answer(runtime: Any, field: str, value: Any) -> None:
    options = {field.partition(".")[0]: value}
    invalid(
        lambda: runtime.converse(modelId=MODEL, messages=USER, **options),
        f"This model doesn't support the {field} field. Remove {field} and try again.",
    )


def test_blank_system_text(runtime: Any) -> None:
    invalid(
        lambda: runtime.converse(modelId=MODEL, messages=USER, system=[{"text": " "}]),
        "The text field in the SystemContentBlock object at system.0 is blank. "
        "Add text to the text field, and try again.",
    )


def at(path: str, value: str | None, rule: str) -> str:
    shown = "Value" if value is None else f"Value '{value}'"
    return f"{shown} at '{path}' failed to satisfy constraint: Member must {rule}"


VIOLATIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "maxTokens 0": ({"inferenceConfig": {"maxTokens": 0}},
        (at("inferenceConfig.maxTokens", "0", "have value greater than or equal to 1"),)),
    "temperature 7": ({"inferenceConfig": {"temperature": 7.0}},
        (at("inferenceConfig.temperature", "7.0", "have value less than or equal to 1"),)),
    "several": ({"inferenceConfig": {"temperature": -0.5, "topP": 1.5, "stopSequences": [""]}},
        (at("inferenceConfig.temperature", "-0.5", "have value greater than or equal to 0"),
         at("inferenceConfig.topP", "1.5", "have value less than or equal to 1"),
         at("inferenceConfig.stopSequences.1.member", "", "have length greater than or equal to 1"))),
    "too many stop sequences": ({"inferenceConfig": {"stopSequences": ["x"] * 2501}},
        (at("inferenceConfig.stopSequences", None, "have length less than or equal to 2500"),)),
    "role": ({"messages": [turn("tool", TEXT)]},
        (at("messages.1.member.role", "tool", "satisfy enum value set: [user, assistant, system]"),)),
    "service tier": ({"serviceTier": {"type": "gold"}},
        (at("serviceTier.type", "gold", "satisfy enum value set: [priority, default, flex, reserved]"),)),
    "latency": ({"performanceConfig": {"latency": "x"}},
        (at("performanceConfig.latency", "x", "satisfy enum value set: [standard, optimized]"),)),
    "metadata": ({"requestMetadata": {"k": "<"}},
        (at("requestMetadata", None,
            r"satisfy regular expression pattern: [a-zA-Z0-9\s:_@$#=/+,-.]{0,256}"),)),
    "pointer": ({"additionalModelResponseFieldPaths": ["stop"]},
        (at("additionalModelResponseFieldPaths.1.member", None,
            "satisfy regular expression pattern: (?:/(?:[^~/]|~[01])*)+"),)),
}  # fmt: skip


@pytest.mark.parametrize(("options", "problems"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_constraints(runtime: Any, options: dict[str, Any], problems: tuple[str, ...]) -> None:
    violation(lambda: runtime.converse(**({"modelId": MODEL, "messages": USER} | options)), *problems)


def test_limits_of_the_context(runtime: Any) -> None:
    too_long = (
        "The model returned the following errors: This model's maximum context length is 512 tokens. "
        "Please reduce the length of the prompt"
    )
    for text in ("x" * 505, "x" * 20_000_000):
        messages = [turn("user", {"text": text})]
        invalid(lambda messages=messages: runtime.converse(modelId=MODEL, messages=messages), too_long)
        body = json.dumps({"prompt": text * 2 if len(text) < 512 else text})
        invalid(lambda body=body: runtime.invoke_model(modelId=MODEL, body=body), too_long)
    invalid(
        lambda: runtime.converse(modelId=MODEL, messages=USER, inferenceConfig={"maxTokens": 513}),
        "The maximum tokens you requested exceeds the model limit of 512. "
        "Try again with a maximum tokens value that is lower than 512.",
    )


def test_prompts_that_the_model_cannot_take(runtime: Any) -> None:
    invalid(
        lambda: runtime.converse(modelId=MODEL, messages=[turn("user", {"text": "REFUSE"})]),
        "The model returned the following errors: no such words here",
    )
    invalid(
        lambda: runtime.invoke_model(modelId=MODEL, body=json.dumps({"prompt": "\0"})),
        "The model returned the following errors: The prompt has no tokens in this model's vocabulary.",
    )


def test_stop_sequences_of_unreasonable_length(runtime: Any) -> None:
    invalid(
        lambda: runtime.converse(
            modelId=MODEL, messages=USER, inferenceConfig={"stopSequences": ["x" * 25_001]}
        ),
        "The stop sequences at inferenceConfig.stopSequences have more than 25000 characters together. "
        "Remove some of them and try again.",
    )


def test_a_body_over_25_megabytes(runtime: Any) -> None:
    violation(
        lambda: runtime.invoke_model(modelId=MODEL, body=bytes(25_000_001)),
        at("body", None, "have length less than or equal to 25000000"),
    )
    assert_refused(
        lambda: runtime.converse(modelId=MODEL, messages=[turn("user", {"text": "x" * 25_000_000})]),
        413,
        "RequestEntityTooLargeException",
        "Request body must not be larger than 25000000 bytes.",
    )


NATIVE = {
    "malformed JSON": (b"{", ""),
    "nothing": (b"", ""),
    "nesting": (b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", ""),
    "no prompt": (b"{}", ": #: required key [prompt] not found"),
    "empty prompt": (b'{"prompt": ""}', ": #/prompt: expected minLength: 1, actual: 0"),
    "prompt of another type": (b'{"prompt": 5}', ": #/prompt: expected type: String, found: Integer"),
    "not an object": (b"[]", ": #: expected type: JSONObject, found: JSONArray"),
    "images": (b'{"prompt": "x", "images": []}', ": #: extraneous key [images] is not permitted"),
    "temperature 7": (b'{"prompt": "x", "temperature": 7}', ": #/temperature: 7 is not less or equal to 1"),
    "max_gen_len 0": (
        b'{"prompt": "x", "max_gen_len": 0}',
        ": #/max_gen_len: 0 is not greater or equal to 1",
    ),
    "null": (b'{"prompt": "x", "top_p": null}', ": #/top_p: expected type: Number, found: Null"),
    "two": (
        b'{"prompt": "x", "a": 1, "max_gen_len": 1.5}',
        ": #: extraneous key [a] is not permitted#/max_gen_len: expected type: Integer, found: BigDecimal",
    ),
}


@pytest.mark.parametrize(("body", "problem"), NATIVE.values(), ids=NATIVE)
def test_native_bodies(runtime: Any, body: bytes, problem: str) -> None:
    message = f"Malformed input request{problem}, please reformat your input and try again."
    invalid(lambda: runtime.invoke_model(modelId=MODEL, body=body), message)
    invalid(lambda: runtime.invoke_model_with_response_stream(modelId=MODEL, body=body), message)


def test_additional_fields(runtime: Any) -> None:
    invalid(
        lambda: runtime.converse(modelId=MODEL, messages=USER, additionalModelRequestFields={"top_n": 1}),
        "The model returned the following errors: Malformed input request: "
        "#: extraneous key [top_n] is not permitted, please reformat your input and try again.",
    )


def test_headers_of_invoke_model(runtime: Any) -> None:
    violation(
        lambda: runtime.invoke_model(modelId=MODEL, body=b'{"prompt": "x"}', trace="YES"),
        at("trace", "YES", "satisfy enum value set: [ENABLED, DISABLED, ENABLED_FULL]"),
    )
    invalid(
        lambda: runtime.invoke_model(modelId=MODEL, body=b'{"prompt": "x"}', guardrailIdentifier="g"),
        "A guardrail is named by guardrailIdentifier and guardrailVersion together. "
        "Give both, or neither, and try again.",
    )


def test_foundation_models(control: Any) -> None:
    (summary,) = control.list_foundation_models()["modelSummaries"]
    assert summary["modelId"] == MODEL
    assert summary["modelArn"] == f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"
    for identifier in (MODEL, summary["modelArn"], "llama"):
        assert control.get_foundation_model(modelIdentifier=identifier)["modelDetails"] == summary
    assert_refused(
        lambda: control.get_foundation_model(modelIdentifier="meta.llama2-13b-chat-v1"),
        404,
        "ResourceNotFoundException",
        "Could not resolve the foundation model from the provided model identifier.",
    )
    invalid(
        lambda: control.get_foundation_model(modelIdentifier="a b"),
        "The provided model identifier is invalid.",
    )
