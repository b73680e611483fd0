"""Strands Agents: its Bedrock model, always streaming unless told otherwise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

from botocore.config import Config
from harness import Result, load_task, report
from pydantic import BaseModel
from strands import Agent
from strands import tool as as_tool
from strands.models import BedrockModel

task = load_task()
spec = {
    "name": task["tool"]["name"],
    "description": task["tool"]["description"],
    "inputSchema": {"json": task["tool"]["schema"]},
}


def bedrock(model: str = task["model"], **more: Any) -> BedrockModel:
    return BedrockModel(
        model_id=model,
        endpoint_url=task["url"],
        boto_client_config=Config(retries={"total_max_attempts": 1}),
        temperature=0,
        max_tokens=task["max_tokens"],
        **more,
    )


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"text": text}]}


async def collected(events: AsyncIterator[Any]) -> Result:
    result: Result = {"pieces": [], "calls": [], "stop": "", "usage": []}
    async for event in events:
        match event:
            case {"contentBlockDelta": {"delta": {"text": text}}}:
                result["pieces"].append(text)
            case {"contentBlockStart": {"start": {"toolUse": {"name": name}}}}:
                result["calls"].append({"name": name, "arguments": ""})
            case {"contentBlockDelta": {"delta": {"toolUse": {"input": fragment}}}}:
                result["calls"][-1]["arguments"] += fragment
            case {"messageStop": {"stopReason": reason}}:
                result["stop"] = reason
            case {"metadata": {"usage": usage}}:
                result["usage"] = [usage["inputTokens"], usage["outputTokens"]]
    return result


async def ask(text: str = task["question"], model: BedrockModel | None = None, **more: Any) -> Result:
    return await collected((model or bedrock()).stream([user(text)], **more))


async def plain() -> Result:
    """Without streaming: Strands makes events of the one answer."""
    result = await ask(model=bedrock(streaming=False))
    return result | {"text": "".join(result["pieces"])}


async def stream() -> Result:
    return await ask()


async def system() -> Result:
    result = await ask(system_prompt=task["system"])
    return result | {"text": "".join(result["pieces"])}


async def stop() -> Result:
    result = await ask(model=bedrock(stop_sequences=[task["stop"]]))
    return result | {"text": "".join(result["pieces"])}


async def unknown_model() -> Result:
    return await ask(model=bedrock(task["unknown_model"]))


async def overlong() -> Result:
    return await ask(task["overlong"])


async def throttled() -> Result:
    return await ask(model=bedrock(task["throttled_model"]))


async def tool_auto() -> Result:
    result = await ask(task["tool_question"], tool_specs=[spec])
    return result | {"text": "".join(result["pieces"])}


async def tool_any() -> Result:
    return await ask(
        task["tool_question"], bedrock(streaming=False), tool_specs=[spec], tool_choice={"any": {}}
    )


async def tool_named() -> Result:
    choice = {"tool": {"name": task["tool"]["name"]}}
    return await ask(task["tool_question"], bedrock(streaming=False), tool_specs=[spec], tool_choice=choice)


async def tool_stream() -> Result:
    return await ask(task["tool_question"], tool_specs=[spec], tool_choice={"any": {}})


async def tool_result() -> Result:
    called = (await tool_named())["calls"][0]
    use = {"toolUseId": "call-1", "name": called["name"], "input": json.loads(called["arguments"])}
    conversation = [
        user(task["tool_question"]),
        {"role": "assistant", "content": [{"toolUse": use}]},
        {
            "role": "user",
            "content": [
                {
                    "toolResult": {
                        "toolUseId": "call-1",
                        "status": "success",
                        "content": [{"json": task["tool_result"]}],
                    }
                }
            ],
        },
    ]
    result = await collected(bedrock().stream(conversation, tool_specs=[spec]))
    return result | {"text": "".join(result["pieces"])}


class Answer(BaseModel):
    """The capital of a country."""

    capital: Literal["Berlin", "Paris", "Rome"]
    continent: Literal["Africa", "Europe"]


def structured() -> Result:
    answer = Agent(model=bedrock(), callback_handler=None)(task["question"], structured_output_model=Answer)
    return {"value": answer.structured_output.model_dump()}


@as_tool
def get_weather(city: str, unit: str) -> str:
    """The weather in a city.

    Args:
        city: The city.
        unit: celsius or fahrenheit.
    """
    return json.dumps(task["tool_result"])


def agent() -> Result:
    """A whole agent with a tool that the model has no need of."""
    answer = Agent(model=bedrock(), tools=[get_weather], callback_handler=None)(task["question"])
    return {"text": str(answer), "stop": answer.stop_reason}


async def count() -> Result:
    return {"tokens": await bedrock(use_native_token_count=True).count_tokens([user(task["question"])])}


report(
    ("strands-agents", "boto3"),
    {
        "plain": plain,
        "stream": stream,
        "system": system,
        "stop": stop,
        "unknown_model": unknown_model,
        "overlong": overlong,
        "throttled": throttled,
        "tool_auto": tool_auto,
        "tool_any": tool_any,
        "tool_named": tool_named,
        "tool_stream": tool_stream,
        "tool_result": tool_result,
        "structured": structured,
        "agent": agent,
        "count": count,
    },
)
