"""Anthropic's library: its client against `/anthropic`, and AnthropicBedrock, which signs InvokeModel calls.

Its methods have no `temperature` any more, so the program gives it as the library's users do for members
that it does not know: in `extra_body`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
from harness import Result, load_task, report

task = load_task()
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
native = anthropic.Anthropic(base_url=f"{task['url']}/anthropic", api_key="local", max_retries=0)
bedrock = anthropic.AnthropicBedrock(
    base_url=task["url"],
    aws_region="us-east-1",
    aws_access_key="local",
    aws_secret_key="local",
    max_retries=0,
)
tool = {
    "name": task["tool"]["name"],
    "description": task["tool"]["description"],
    "input_schema": task["tool"]["schema"],
}
question = {"role": "user", "content": task["question"]}
tool_question = {"role": "user", "content": task["tool_question"]}


def asking(*messages: Any, **more: Any) -> dict[str, Any]:
    return {
        "model": CLAUDE,
        "max_tokens": task["max_tokens"],
        "messages": list(messages or [question]),
        "extra_body": {"temperature": 0},
    } | more


def answered(message: Any) -> Result:
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "calls": [
            {"name": block.name, "arguments": block.input}
            for block in message.content
            if block.type == "tool_use"
        ],
        "stop": message.stop_reason,
        "usage": [message.usage.input_tokens, message.usage.output_tokens],
    }


def streamed(client: Any, *messages: Any, **more: Any) -> Result:
    with client.messages.stream(**asking(*messages, **more)) as stream:
        events = list(stream)
        final = answered(stream.get_final_message())
    kinds = [event.type for event in events if event.type not in ("text", "input_json")]
    return final | {"pieces": [event.text for event in events if event.type == "text"], "events": kinds}


def tool_result(client: Any) -> Result:
    choice = {"type": "tool", "name": tool["name"]}
    called = client.messages.create(**asking(tool_question, tools=[tool], tool_choice=choice))
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": str(task["tool_result"])}
        for block in called.content
    ]
    history = ({"role": "assistant", "content": called.content}, {"role": "user", "content": results})
    return answered(client.messages.create(**asking(tool_question, *history, tools=[tool])))


def checks(client: Any) -> dict[str, Callable[[], Result]]:
    def create(*messages: Any, **more: Any) -> Result:
        return answered(client.messages.create(**asking(*messages, **more)))

    forced = {"tools": [tool], "tool_choice": {"type": "any"}}
    return {
        "plain": create,
        "stream": lambda: streamed(client),
        "system": lambda: create(system=task["system"]),
        "stop": lambda: create(stop_sequences=[task["stop"]]),
        "tool_auto": lambda: create(tool_question, tools=[tool]),
        "tool_any": lambda: create(tool_question, **forced),
        "tool_stream": lambda: streamed(client, tool_question, **forced),
        "tool_result": lambda: tool_result(client),
        "overlong": lambda: create({"role": "user", "content": task["overlong"]}),
    }


def count() -> Result:
    return {"tokens": native.messages.count_tokens(model=CLAUDE, messages=[question]).input_tokens}


report(
    ("anthropic",),
    checks(native) | {"count": count} | {f"bedrock_{name}": check for name, check in checks(bedrock).items()},
)
