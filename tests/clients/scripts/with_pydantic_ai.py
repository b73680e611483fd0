"""pydantic-ai: BedrockConverseModel.

Its profile of Llama has neither tool choice nor JSON-schema answers, so the program gives the model a profile
that has, with the parameter that is there for it."""

from __future__ import annotations

import json
from typing import Any, Literal

from harness import Result, load_task, report
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, Tool, ToolOutput
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import (
    ModelRequest,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.bedrock import BedrockConverseModel
from pydantic_ai.providers.bedrock import BedrockModelProfile, BedrockProvider
from pydantic_ai.tools import ToolDefinition

task = load_task()
provider = BedrockProvider(base_url=task["url"], region_name="us-east-1")
tool = ToolDefinition(
    name=task["tool"]["name"],
    description=task["tool"]["description"],
    parameters_json_schema=task["tool"]["schema"],
)


def bedrock(model: str = task["model"]) -> BedrockConverseModel:
    return BedrockConverseModel(
        model,
        provider=provider,
        profile=BedrockModelProfile(bedrock_supports_tool_choice=True, supports_json_schema_output=True),
        settings={"temperature": 0, "max_tokens": task["max_tokens"]},
    )


def user(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text)])


def answered(response: Any) -> Result:
    return {
        "text": "".join(part.content for part in response.parts if isinstance(part, TextPart)),
        "calls": [
            {"name": part.tool_name, "arguments": part.args}
            for part in response.parts
            if isinstance(part, ToolCallPart)
        ],
        "stop": response.finish_reason,
        "usage": [response.usage.input_tokens, response.usage.output_tokens],
    }


async def ask(*messages: Any, model: str = task["model"], **more: Any) -> Result:
    return answered(await model_request(bedrock(model), messages or [user(task["question"])], **more))


async def plain() -> Result:
    return await ask()


async def stream() -> Result:
    pieces: list[str] = []
    async with model_request_stream(bedrock(), [user(task["question"])]) as events:
        async for event in events:
            part = getattr(event, "part", None) or getattr(event, "delta", None)
            if event.event_kind == "part_start" and isinstance(part, TextPart):
                pieces.append(part.content)
            elif event.event_kind == "part_delta":
                pieces.append(part.content_delta)
        response = events.get()
    return answered(response) | {"pieces": pieces}


async def system() -> Result:
    return await ask(ModelRequest(parts=[SystemPromptPart(task["system"]), UserPromptPart(task["question"])]))


async def stop() -> Result:
    return await ask(model_settings={"stop_sequences": [task["stop"]]})


async def unknown_model() -> Result:
    return await ask(model=task["unknown_model"])


async def overlong() -> Result:
    return await ask(user(task["overlong"]))


async def throttled() -> Result:
    return await ask(model=task["throttled_model"])


async def tool_auto() -> Result:
    return await ask(
        user(task["tool_question"]),
        model_request_parameters=ModelRequestParameters(function_tools=[tool], allow_text_output=True),
    )


def forced() -> dict[str, Any]:
    parameters = ModelRequestParameters(function_tools=[tool], allow_text_output=False)
    return {"model_request_parameters": parameters}


async def tool_any() -> Result:
    return await ask(user(task["tool_question"]), **forced())


async def tool_named() -> Result:
    choice = {"tool_choice": [task["tool"]["name"]]}
    return await ask(user(task["tool_question"]), model_settings=choice, **forced())


async def tool_stream() -> Result:
    async with model_request_stream(bedrock(), [user(task["tool_question"])], **forced()) as events:
        async for _ in events:
            pass
        return answered(events.get())


async def tool_result() -> Result:
    question = user(task["tool_question"])
    called = await model_request(bedrock(), [question], **forced())
    returns = [
        ToolReturnPart(part.tool_name, task["tool_result"], part.tool_call_id)
        for part in called.parts
        if isinstance(part, ToolCallPart)
    ]
    return await ask(
        question,
        called,
        ModelRequest(parts=returns),
        model_request_parameters=ModelRequestParameters(function_tools=[tool], allow_text_output=True),
    )


class Answer(BaseModel):
    """The capital of a country."""

    capital: Literal["Berlin", "Paris", "Rome"]
    continent: Literal["Africa", "Europe"]


async def structured() -> Result:
    answer = await Agent(bedrock(), output_type=NativeOutput(Answer)).run(task["question"])
    return {"value": answer.output.model_dump()}


async def structured_by_tool() -> Result:
    answer = await Agent(bedrock(), output_type=ToolOutput(Answer)).run(task["question"])
    return {"value": answer.output.model_dump()}


def get_weather(city: str, unit: str) -> str:
    """The weather in a city."""
    return json.dumps(task["tool_result"])


async def agent() -> Result:
    """A whole agent with a tool that the model has no need of."""
    answer = await Agent(bedrock(), tools=[Tool(get_weather)]).run(task["question"])
    return {"text": answer.output}


async def count() -> Result:
    usage = await bedrock().count_tokens([user(task["question"])], None, ModelRequestParameters())
    return {"tokens": usage.input_tokens}


checks = (
    plain, stream, system, stop, unknown_model, overlong, throttled, tool_auto, tool_any, tool_named,
    tool_stream, tool_result, structured, structured_by_tool, agent, count,
)  # fmt: skip
report(("pydantic-ai-slim", "boto3"), {check.__name__: check for check in checks})
