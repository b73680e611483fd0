"""LiteLLM, which signs with botocore and speaks HTTP itself.

Its table of models says nothing of tool choice and JSON-schema answers for Llama, so the program adds that,
as LiteLLM's users do for models of their own."""

from __future__ import annotations

import json
from typing import Any

import litellm
from harness import Result, load_task, report

task = load_task()
litellm.suppress_debug_info = True
litellm.register_model(
    {
        task["model"]: {
            "litellm_provider": "bedrock_converse",
            "mode": "chat",
            "supports_function_calling": True,
            "supports_tool_choice": True,
            "supports_native_structured_output": True,
        }
    }
)
tool = {
    "type": "function",
    "function": {
        "name": task["tool"]["name"],
        "description": task["tool"]["description"],
        "parameters": task["tool"]["schema"],
    },
}
question = {"role": "user", "content": task["question"]}
tool_question = {"role": "user", "content": task["tool_question"]}


def complete(*messages: Any, route: str = "converse", model: str = task["model"], **more: Any) -> Any:
    return litellm.completion(
        model=f"bedrock/{route}/{model}",
        messages=list(messages),
        api_base=task["url"],
        temperature=0,
        max_tokens=task["max_tokens"],
        max_retries=0,
        **more,
    )


def answered(answer: Any) -> Result:
    message = answer.choices[0].message
    return {
        "text": message.content or "",
        "calls": [
            {"name": call.function.name, "arguments": call.function.arguments}
            for call in message.tool_calls or ()
        ],
        "stop": answer.choices[0].finish_reason,
        "usage": [answer.usage.prompt_tokens, answer.usage.completion_tokens],
    }


def streamed(chunks: Any) -> Result:
    pieces: list[str] = []
    calls: list[dict[str, str]] = []
    usage: list[int] = []
    stop = ""
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.delta.content:
                pieces.append(choice.delta.content)
            for call in choice.delta.tool_calls or ():
                if call.function.name:
                    calls.append({"name": call.function.name, "arguments": ""})
                calls[-1]["arguments"] += call.function.arguments or ""
            stop = choice.finish_reason or stop
        if getattr(chunk, "usage", None):
            usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
    return {"pieces": pieces, "calls": calls, "stop": stop, "usage": usage}


def stream(**more: Any) -> Result:
    return streamed(complete(question, stream=True, stream_options={"include_usage": True}, **more))


def with_tool(choice: Any) -> Result:
    return answered(complete(tool_question, tools=[tool], tool_choice=choice))


def tool_stream() -> Result:
    return streamed(complete(tool_question, tools=[tool], tool_choice="required", stream=True))


def tool_result() -> Result:
    named = {"type": "function", "function": {"name": task["tool"]["name"]}}
    called = complete(tool_question, tools=[tool], tool_choice=named).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps(task["tool_result"])}
        for call in called.tool_calls
    ]
    return answered(complete(tool_question, called.model_dump(), *results, tools=[tool]))


def structured() -> Result:
    schema = {"name": task["answer"]["name"], "schema": task["answer"]["json"], "strict": True}
    answer = complete(question, response_format={"type": "json_schema", "json_schema": schema})
    return {"value": json.loads(answer.choices[0].message.content)}


report(
    ("litellm",),
    {
        "plain": lambda: answered(complete(question)),
        "stream": stream,
        "system": lambda: answered(complete({"role": "system", "content": task["system"]}, question)),
        "stop": lambda: answered(complete(question, stop=[task["stop"]])),
        "unknown_model": lambda: answered(complete(question, model=task["unknown_model"])),
        "overlong": lambda: answered(complete({"role": "user", "content": task["overlong"]})),
        "throttled": lambda: answered(complete(question, model=task["throttled_model"])),
        "tool_auto": lambda: with_tool("auto"),
        "tool_any": lambda: with_tool("required"),
        "tool_named": lambda: with_tool({"type": "function", "function": {"name": task["tool"]["name"]}}),
        "tool_stream": tool_stream,
        "tool_result": tool_result,
        "structured": structured,
        "native": lambda: answered(complete(question, route="invoke")),
        "native_stream": lambda: stream(route="invoke"),
    },
)
