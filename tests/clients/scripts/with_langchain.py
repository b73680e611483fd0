"""langchain-aws: ChatBedrockConverse, and ChatBedrock, which speaks the model's native format.

LangChain thinks that Llama takes no tool choice but auto, so the program says which ones there are, with the
parameter that is there for it."""

from __future__ import annotations

from typing import Any

from harness import Result, load_task, report
from langchain_aws import ChatBedrock, ChatBedrockConverse
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

task = load_task()
tool = {
    "name": task["tool"]["name"],
    "description": task["tool"]["description"],
    "input_schema": task["tool"]["schema"],
}


def chat(model: str = task["model"], **more: Any) -> ChatBedrockConverse:
    return ChatBedrockConverse(
        model=model,
        base_url=task["url"],
        temperature=0,
        max_tokens=task["max_tokens"],
        max_retries=0,
        supports_tool_choice_values=("auto", "any", "tool"),
        **more,
    )


def native_chat() -> ChatBedrock:
    return ChatBedrock(
        model=task["model"],
        endpoint_url=task["url"],
        temperature=0,
        max_tokens=task["max_tokens"],
        max_retries=0,
    )


def answered(message: AIMessage) -> Result:
    usage = message.usage_metadata
    text = message.text
    return {
        "text": text if isinstance(text, str) else text(),
        "calls": [{"name": call["name"], "arguments": call["args"]} for call in message.tool_calls],
        "stop": message.response_metadata.get("stopReason"),
        "usage": [usage["input_tokens"], usage["output_tokens"]] if usage else [],
    }


def plain() -> Result:
    return answered(chat().invoke(task["question"]))


def stream() -> Result:
    chunks = list(chat().stream(task["question"]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return answered(whole) | {"pieces": [chunk.text for chunk in chunks if chunk.text]}


def system() -> Result:
    return answered(chat().invoke([SystemMessage(task["system"]), HumanMessage(task["question"])]))


def stop() -> Result:
    return answered(chat().invoke(task["question"], stop=[task["stop"]]))


def with_tool(choice: str) -> Result:
    return answered(chat().bind_tools([tool], tool_choice=choice).invoke(task["tool_question"]))


def tool_stream() -> Result:
    chunks = list(chat().bind_tools([tool], tool_choice="any").stream(task["tool_question"]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return answered(whole)


def tool_result() -> Result:
    question = HumanMessage(task["tool_question"])
    call = chat().bind_tools([tool], tool_choice=task["tool"]["name"]).invoke([question])
    results = [ToolMessage(str(task["tool_result"]), tool_call_id=each["id"]) for each in call.tool_calls]
    return answered(chat().bind_tools([tool]).invoke([question, call, *results]))


def structured() -> Result:
    schema = {"title": task["answer"]["name"], "description": "The answer"} | task["answer"]["json"]
    return {"value": chat().with_structured_output(schema, method="json_schema").invoke(task["question"])}


def structured_by_tool() -> Result:
    schema = {"title": task["answer"]["name"], "description": "The answer"} | task["answer"]["json"]
    return {"value": chat().with_structured_output(schema).invoke(task["question"])}


def native() -> Result:
    return answered(native_chat().invoke(task["question"]))


def native_stream() -> Result:
    pieces = [chunk.text for chunk in native_chat().stream(task["question"]) if chunk.text]
    return {"pieces": pieces}


report(
    ("langchain-aws", "langchain-core", "boto3"),
    {
        "plain": plain,
        "stream": stream,
        "system": system,
        "stop": stop,
        "unknown_model": lambda: answered(chat(task["unknown_model"], provider="meta").invoke("Hi")),
        "overlong": lambda: answered(chat().invoke(task["overlong"])),
        "throttled": lambda: answered(chat(task["throttled_model"]).invoke("Hi")),
        "tool_auto": lambda: with_tool("auto"),
        "tool_any": lambda: with_tool("any"),
        "tool_named": lambda: with_tool(task["tool"]["name"]),
        "tool_stream": tool_stream,
        "tool_result": tool_result,
        "structured": structured,
        "structured_by_tool": structured_by_tool,
        "native": native,
        "native_stream": native_stream,
    },
)
