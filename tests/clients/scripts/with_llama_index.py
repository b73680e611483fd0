"""LlamaIndex: BedrockConverse, which is boto3 underneath, and aioboto3 for its asynchronous half."""

import json
from typing import Any, Literal

from harness import Result, load_task, report
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool
from llama_index.llms.bedrock_converse import BedrockConverse
from pydantic import BaseModel

task = load_task()


def get_weather(city: Literal["Berlin", "Paris", "Rome"], unit: Literal["celsius", "fahrenheit"]) -> str:
    """The weather in a city."""
    return json.dumps(task["tool_result"])


tool = FunctionTool.from_defaults(get_weather)


def bedrock(model: str = task["model"], **more: Any) -> BedrockConverse:
    return BedrockConverse(
        model=model,
        endpoint_url=task["url"],
        region_name="us-east-1",
        temperature=0,
        max_tokens=task["max_tokens"],
        max_retries=1,
        **more,
    )


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def answered(response: ChatResponse) -> Result:
    blocks = response.message.blocks
    usage = response.raw["usage"] if "usage" in response.raw else response.raw["metadata"]["usage"]
    return {
        "text": "".join(block.text for block in blocks if isinstance(block, TextBlock)),
        "calls": [
            {"name": block.tool_name, "arguments": block.tool_kwargs}
            for block in blocks
            if isinstance(block, ToolCallBlock)
        ],
        "usage": [usage["inputTokens"], usage["outputTokens"]],
    }


def chat(*messages: ChatMessage, model: str = task["model"], **more: Any) -> Result:
    return answered(bedrock(model, **more).chat(messages or [user(task["question"])]))


def stream() -> Result:
    responses = list(bedrock().stream_chat([user(task["question"])]))
    pieces = [response.delta for response in responses if response.delta]
    return answered(responses[-1]) | {"pieces": pieces}


def with_tool(**choice: Any) -> Result:
    return answered(bedrock().chat_with_tools([tool], task["tool_question"], **choice))


def tool_stream() -> Result:
    responses = bedrock().stream_chat_with_tools([tool], task["tool_question"], tool_required=True)
    return answered(list(responses)[-1])


def tool_result() -> Result:
    question = user(task["tool_question"])
    called = bedrock().chat_with_tools([tool], chat_history=[question], tool_required=True).message
    results = [
        ChatMessage(
            role=MessageRole.TOOL,
            content=json.dumps(task["tool_result"]),
            additional_kwargs={"tool_call_id": block.tool_call_id},
        )
        for block in called.blocks
        if isinstance(block, ToolCallBlock)
    ]
    return answered(bedrock().chat_with_tools([tool], chat_history=[question, called, *results]))


class Answer(BaseModel):
    """The capital of a country."""

    capital: Literal["Berlin", "Paris", "Rome"]
    continent: Literal["Africa", "Europe"]


def structured_by_tool() -> Result:
    answer = bedrock().as_structured_llm(Answer).chat([user(task["question"])])
    return {"value": answer.raw.model_dump()}


report(
    ("llama-index-llms-bedrock-converse", "llama-index-core", "boto3"),
    {
        "plain": chat,
        "stream": stream,
        "system": lambda: chat(
            ChatMessage(role=MessageRole.SYSTEM, content=task["system"]), user(task["question"])
        ),
        "unknown_model": lambda: chat(model=task["unknown_model"]),
        "overlong": lambda: chat(user(task["overlong"])),
        "throttled": lambda: chat(model=task["throttled_model"]),
        "tool_auto": with_tool,
        "tool_any": lambda: with_tool(tool_required=True),
        "tool_named": lambda: with_tool(tool_choice={"tool": {"name": task["tool"]["name"]}}),
        "tool_stream": tool_stream,
        "tool_result": tool_result,
        "structured_by_tool": structured_by_tool,
    },
)
