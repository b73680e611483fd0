"""Answers of real weights that are held to a schema, which a model would not do by itself; and what is done
with calls beside answering them: guardrails, reserved places, logs."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from demo import PATH
from serving import ANY_MODEL, Served, eventually, serving

from outcrop.text.tokenizer import load_tokenizer

QUESTION = [{"role": "user", "content": [{"text": "What is the weather in Paris, in Celsius?"}]}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS = [
    {"toolSpec": {"name": "weather", "description": "The weather", "inputSchema": {"json": SCHEMA}}},
    {"toolSpec": {"name": "time", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
]
CONFIG = {"maxTokens": 120, "temperature": 0}
NAMED = {"tools": TOOLS, "toolChoice": {"tool": {"name": "weather"}}}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, logs: Path) -> Iterator[Served]:
    """Of two rows. Jobs and logs may use the folder `logs`."""
    options = ("--max-model-len", "1024", "--max-rows", "2")
    folder = json.dumps({"folder": str(logs)})
    with serving(tmp_path_factory.mktemp("server"), *options, OUTCROP_STORAGE=folder) as served:
        yield served


@pytest.fixture(scope="module")
def runtime(server: Served) -> Iterator[Any]:
    with closing(server.client()) as client:
        yield client


@pytest.fixture(scope="module")
def bedrock(server: Served) -> Iterator[Any]:
    with closing(server.client("bedrock")) as client:
        yield client


@pytest.fixture(scope="module")
def reserved(server: Served, runtime: Any, bedrock: Any, logs: Path) -> dict[str, Any]:
    """The answer of a Provisioned Throughput while two others take the rows that there are, and its `arn`.
    Calls are logged from then on."""
    place = {"bucketName": f"file://{logs}", "keyPrefix": "calls"}
    bedrock.put_model_invocation_logging_configuration(loggingConfig={"s3Config": place})
    arn = bedrock.create_provisioned_model_throughput(
        provisionedModelName="mine", modelUnits=1, modelId=ANY_MODEL
    )["provisionedModelArn"]
    tokens = 60
    body = {
        "model": ANY_MODEL, "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    with ExitStack() as held:
        responses = [
            held.enter_context(
                httpx.stream("POST", f"{server.url}/openai/v1/completions", json=body, timeout=60)
            )
            for _ in range(2)
        ]
        streams = [response.iter_lines() for response in responses]
        for stream in streams:
            next(stream)
        answer = ask(runtime, modelId=arn, inferenceConfig={"maxTokens": 3, "temperature": 0})
        preemptions = server.metric("vllm:num_preemptions_total")
        # The one that made room goes on afterwards, with nothing missing.
        for stream in streams:
            usage = [line for line in stream if '"completion_tokens":' in line]
            assert f'"completion_tokens":{tokens}' in usage[-1]
    bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    return answer | {"arn": arn, "preemptions": preemptions}


def assert_fits_schema(value: Any) -> None:
    assert value.keys() == {"city", "unit"}
    assert len(value["city"]) <= 8
    assert value["unit"] in ("C", "F")


def ask(runtime: Any, **options: Any) -> dict[str, Any]:
    fields = {"modelId": ANY_MODEL, "messages": QUESTION, "inferenceConfig": CONFIG} | options
    answer: dict[str, Any] = runtime.converse(**fields)
    return answer


def test_a_reserved_place_is_had_though_every_row_is_taken(bedrock: Any, reserved: dict[str, Any]) -> None:
    assert reserved["preemptions"] == 1
    assert (reserved["stopReason"], reserved["usage"]["outputTokens"]) == ("max_tokens", 3)
    with pytest.raises(bedrock.exceptions.ResourceNotFoundException):
        bedrock.get_provisioned_model_throughput(provisionedModelId=reserved["arn"])


def test_a_forced_call_and_its_stream(runtime: Any) -> None:
    answer = ask(runtime, toolConfig=NAMED)
    assert answer["stopReason"] == "tool_use"
    (block,) = answer["output"]["message"]["content"]
    assert block["toolUse"]["name"] == "weather"
    assert_fits_schema(block["toolUse"]["input"])

    stream = runtime.converse_stream(
        modelId=ANY_MODEL, messages=QUESTION, inferenceConfig=CONFIG, toolConfig=NAMED
    )["stream"]
    events = list(stream)
    assert events[1]["contentBlockStart"]["start"]["toolUse"]["name"] == "weather"
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert len(deltas) > 3
    assert json.loads("".join(delta["toolUse"]["input"] for delta in deltas)) == block["toolUse"]["input"]
    assert events[-2] == {"messageStop": {"stopReason": "tool_use"}}


def test_any_tool(runtime: Any) -> None:
    choice = {"tools": TOOLS, "toolChoice": {"any": {}}}
    answer = ask(runtime, toolConfig=choice)
    calls = [block["toolUse"]["name"] for block in answer["output"]["message"]["content"]]
    assert calls
    assert set(calls) <= {"weather", "time"}


def test_a_conversation_with_a_call_goes_on(runtime: Any) -> None:
    called = ask(runtime, toolConfig=NAMED)["output"]["message"]
    use_id = called["content"][0]["toolUse"]["toolUseId"]
    result = {"toolResult": {"toolUseId": use_id, "content": [{"json": {"celsius": 21}}]}}
    messages = [*QUESTION, called, {"role": "user", "content": [result]}]
    answer = ask(runtime, messages=messages, toolConfig={"tools": TOOLS}, inferenceConfig={"maxTokens": 2})
    counted = runtime.count_tokens(
        modelId=ANY_MODEL, input={"converse": {"messages": messages, "toolConfig": {"tools": TOOLS}}}
    )
    assert counted["inputTokens"] == answer["usage"]["inputTokens"]


def test_an_answer_in_json(runtime: Any) -> None:
    output = {"type": "json_schema", "structure": {"jsonSchema": {"schema": json.dumps(SCHEMA)}}}
    answer = ask(runtime, outputConfig={"textFormat": output})
    assert answer["stopReason"] == "end_turn"
    assert_fits_schema(json.loads(answer["output"]["message"]["content"][0]["text"]))


def test_what_the_prefix_cache_did(runtime: Any) -> None:
    text = {"text": "The sea is wide and the sky is high. " * 12}
    messages = [{"role": "user", "content": [text, {"cachePoint": {"type": "default"}}]}]
    options = {"messages": messages, "inferenceConfig": {"maxTokens": 1}}
    first = ask(runtime, **options)["usage"]
    again = ask(runtime, **options)["usage"]
    assert first["cacheReadInputTokens"] < 64
    assert first["cacheWriteInputTokens"] > 60
    assert again["cacheReadInputTokens"] >= first["cacheWriteInputTokens"]
    assert again["cacheWriteInputTokens"] == 0
    assert first["totalTokens"] == again["totalTokens"]


def test_logit_bias_changes_the_answer(runtime: Any) -> None:
    (token,) = load_tokenizer(PATH).encode(" blue")
    answer = ask(
        runtime,
        inferenceConfig={"maxTokens": 2, "temperature": 0},
        additionalModelRequestFields={"logit_bias": {str(token): 100}},
    )
    assert answer["output"]["message"]["content"] == [{"text": " blue blue"}]


def test_a_guardrail_from_its_making_to_its_end(bedrock: Any, runtime: Any) -> None:
    """By boto3 alone: what this model says is masked, then blocked, whole and in a stream."""
    said = ask(runtime)["output"]["message"]["content"][0]["text"]
    word = max(re.findall(r"[A-Za-z]+", said), key=len)
    pattern = rf"\b{word}\b"
    messages = {"blockedInputMessaging": "Not that.", "blockedOutputsMessaging": "Nothing of that."}
    regex = {"name": "word", "pattern": pattern, "action": "ANONYMIZE"}
    masking = {"sensitiveInformationPolicyConfig": {"regexesConfig": [regex]}}
    blocking = {"wordPolicyConfig": {"wordsConfig": [{"text": word}]}}
    options = {"modelId": ANY_MODEL, "messages": QUESTION, "inferenceConfig": CONFIG}
    identifier = bedrock.create_guardrail(name="mine", **masking, **messages)["guardrailId"]
    version = bedrock.create_guardrail_version(guardrailIdentifier=identifier)["version"]
    bedrock.update_guardrail(guardrailIdentifier=identifier, name="mine", **blocking, **messages)

    config = {"guardrailIdentifier": identifier, "guardrailVersion": version, "trace": "enabled"}
    masked = re.sub(pattern, "{word}", said)
    answer = ask(runtime, guardrailConfig=config)
    assert answer["output"]["message"]["content"] == [{"text": masked}]
    assert answer["stopReason"] == "guardrail_intervened"
    (assessment,) = answer["trace"]["guardrail"]["outputAssessments"][identifier]
    assert assessment["sensitiveInformationPolicy"]["regexes"][0]["match"] == word
    assert said_in(runtime.converse_stream(**options, guardrailConfig=config)) == masked

    config["guardrailVersion"] = "DRAFT"
    answer = ask(runtime, guardrailConfig=config)
    assert answer["output"]["message"]["content"] == [{"text": "Nothing of that."}]
    before = re.split(pattern, said, maxsplit=1, flags=re.IGNORECASE)[0]
    blocked = said_in(runtime.converse_stream(**options, guardrailConfig=config))
    assert blocked == before + "Nothing of that."

    applied = runtime.apply_guardrail(
        guardrailIdentifier=identifier,
        guardrailVersion=version,
        source="OUTPUT",
        content=[{"text": {"text": said}}],
    )
    assert applied["outputs"] == [{"text": masked}]
    bedrock.delete_guardrail(guardrailIdentifier=identifier)
    with pytest.raises(runtime.exceptions.ValidationException, match="does not exist"):
        ask(runtime, guardrailConfig=config)


def test_the_log_has_what_was_asked_and_answered(reserved: dict[str, Any], logs: Path) -> None:
    request_id = reserved["ResponseMetadata"]["RequestId"]
    found: list[dict[str, Any]] = []

    def logged() -> bool:
        lines = [line for path in (logs / "calls").rglob("*.json.gz")
                 for line in gzip.decompress(path.read_bytes()).splitlines()]  # fmt: skip
        found[:] = [each for each in map(json.loads, lines) if each["requestId"] == request_id]
        return bool(found)

    eventually(logged, "the record of a call")
    (record,) = found
    assert (record["operation"], record["modelId"]) == ("Converse", reserved["arn"])
    asked = {"messages": QUESTION, "inferenceConfig": {"maxTokens": 3, "temperature": 0}}
    assert record["input"]["inputBodyJson"] == asked
    assert record["input"]["inputTokenCount"] == reserved["usage"]["inputTokens"]
    told = record["output"]["outputBodyJson"]
    assert told == {name: reserved[name] for name in told}
    assert told["output"]["message"]["content"][0]["text"]
    assert record["output"]["outputTokenCount"] == 3


def said_in(answer: dict[str, Any]) -> str:
    """The text of a stream."""
    deltas = (event.get("contentBlockDelta", {}).get("delta", {}) for event in answer["stream"])
    return "".join(delta.get("text", "") for delta in deltas)
