"""aioboto3: boto3 for asyncio, on aiohttp. Its endpoint comes from the environment: AWS_ENDPOINT_URL."""

from __future__ import annotations

import json
from typing import Any

import aioboto3
from botocore.config import Config
from harness import Result, load_task, report
from wire import Requests, Streamed, answered

task = load_task()
requests = Requests(task)
session = aioboto3.Session()


def runtime() -> Any:
    return session.client("bedrock-runtime", config=Config(retries={"total_max_attempts": 1}))


async def converse(request: dict[str, Any]) -> Result:
    async with runtime() as client:
        return answered(await client.converse(**request))


async def converse_stream(request: dict[str, Any]) -> Result:
    streamed = Streamed()
    async with runtime() as client:
        async for event in (await client.converse_stream(**request))["stream"]:
            streamed.add(event)
    return streamed.result()


async def plain() -> Result:
    return await converse(requests.plain())


async def stream() -> Result:
    return await converse_stream(requests.plain())


async def system() -> Result:
    return await converse(requests.system())


async def stop() -> Result:
    return await converse(requests.stop())


async def unknown_model() -> Result:
    return await converse(requests.unknown_model())


async def overlong() -> Result:
    return await converse_stream(requests.overlong())


async def throttled() -> Result:
    return await converse(requests.throttled())


async def tool_auto() -> Result:
    return await converse(requests.tool_auto())


async def tool_any() -> Result:
    return await converse(requests.tool_any())


async def tool_named() -> Result:
    return await converse(requests.tool_named())


async def tool_stream() -> Result:
    return await converse_stream(requests.tool_any())


async def tool_result() -> Result:
    async with runtime() as client:
        called = await client.converse(**requests.tool_named())
        return answered(await client.converse(**requests.tool_result(called)))


async def native() -> Result:
    async with runtime() as client:
        answer = await client.invoke_model(modelId=task["model"], body=json.dumps(requests.native()))
        body = json.loads(await answer["body"].read())
    usage = [body["prompt_token_count"], body["generation_token_count"]]
    return {"text": body["generation"], "usage": usage, "stop": body["stop_reason"]}


async def native_stream() -> Result:
    async with runtime() as client:
        answer = await client.invoke_model_with_response_stream(
            modelId=task["model"], body=json.dumps(requests.native())
        )
        chunks = [json.loads(event["chunk"]["bytes"]) async for event in answer["body"]]
    figures = chunks[-1]["amazon-bedrock-invocationMetrics"]
    return {
        "pieces": [chunk["generation"] for chunk in chunks],
        "usage": [figures["inputTokenCount"], figures["outputTokenCount"]],
        "stop": chunks[-1]["stop_reason"],
    }


async def count() -> Result:
    async with runtime() as client:
        return {"tokens": (await client.count_tokens(**requests.count()))["inputTokens"]}


async def models() -> Result:
    async with session.client("bedrock") as client:
        listed = await client.list_foundation_models()
    return {"models": [each["modelId"] for each in listed["modelSummaries"]]}


checks = (
    plain, stream, system, stop, unknown_model, overlong, throttled, tool_auto, tool_any, tool_named,
    tool_stream, tool_result, native, native_stream, count, models,
)  # fmt: skip
report(("aioboto3", "aiobotocore", "botocore"), {check.__name__: check for check in checks})
