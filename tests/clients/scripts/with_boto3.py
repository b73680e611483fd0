"""boto3, the AWS SDK for Python. Its endpoint comes from the environment: AWS_ENDPOINT_URL."""

from __future__ import annotations

import json
from typing import Any

import boto3
from botocore.config import Config
from harness import Result, load_task, report
from wire import Requests, Streamed, answered

task = load_task()
requests = Requests(task)
runtime = boto3.client("bedrock-runtime", config=Config(retries={"total_max_attempts": 1}))
control = boto3.client("bedrock")


def converse(request: dict[str, Any]) -> Result:
    return answered(runtime.converse(**request))


def converse_stream(request: dict[str, Any]) -> Result:
    streamed = Streamed()
    for event in runtime.converse_stream(**request)["stream"]:
        streamed.add(event)
    return streamed.result()


def tool_result() -> Result:
    return converse(requests.tool_result(runtime.converse(**requests.tool_named())))


def structured() -> Result:
    answer = converse(requests.structured())
    return answer | {"value": json.loads(answer["text"])}


def native() -> Result:
    answer = runtime.invoke_model(modelId=task["model"], body=json.dumps(requests.native()))
    body = json.loads(answer["body"].read())
    usage = [body["prompt_token_count"], body["generation_token_count"]]
    return {"text": body["generation"], "usage": usage, "stop": body["stop_reason"]}


def native_stream() -> Result:
    answer = runtime.invoke_model_with_response_stream(
        modelId=task["model"], body=json.dumps(requests.native())
    )
    chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    figures = chunks[-1]["amazon-bedrock-invocationMetrics"]
    return {
        "pieces": [chunk["generation"] for chunk in chunks],
        "usage": [figures["inputTokenCount"], figures["outputTokenCount"]],
        "stop": chunks[-1]["stop_reason"],
    }


def count() -> Result:
    return {"tokens": runtime.count_tokens(**requests.count())["inputTokens"]}


def models() -> Result:
    return {"models": [each["modelId"] for each in control.list_foundation_models()["modelSummaries"]]}


report(
    ("boto3", "botocore"),
    {
        "plain": lambda: converse(requests.plain()),
        "stream": lambda: converse_stream(requests.plain()),
        "system": lambda: converse(requests.system()),
        "stop": lambda: converse(requests.stop()),
        "unknown_model": lambda: converse(requests.unknown_model()),
        "overlong": lambda: converse_stream(requests.overlong()),
        "throttled": lambda: converse(requests.throttled()),
        "tool_auto": lambda: converse(requests.tool_auto()),
        "tool_any": lambda: converse(requests.tool_any()),
        "tool_named": lambda: converse(requests.tool_named()),
        "tool_stream": lambda: converse_stream(requests.tool_any()),
        "tool_result": tool_result,
        "structured": structured,
        "native": native,
        "native_stream": native_stream,
        "count": count,
        "models": models,
    },
)
