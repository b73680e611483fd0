"""OpenAI's library: its client, and BedrockOpenAI, which signs its calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
from harness import Result, load_task, report

task = load_task()
url = f"{task['url']}/openai/v1"
plain = openai.OpenAI(base_url=url, api_key="local", max_retries=0)
bedrock = openai.BedrockOpenAI(
    base_url=url, aws_region="us-east-1", aws_access_key_id="local", aws_secret_access_key="local",
    max_retries=0,
)  # fmt: skip
function = {
    "name": task["tool"]["name"],
    "description": task["tool"]["description"],
    "parameters": task["tool"]["schema"],
    "strict": True,
}
tool = {"type": "function", "function": function}
question = {"role": "user", "content": task["question"]}
tool_question = {"role": "user", "content": task["tool_question"]}


def asking(*messages: Any, **more: Any) -> dict[str, Any]:
    return {
        "model": task["model"],
        "max_tokens": task["max_tokens"],
        "messages": list(messages or [question]),
        "temperature": 0,
    } | more


def answered(completion: Any) -> Result:
    message = completion.choices[0].message
    return {
        "text": message.content or "",
        "calls": [
            {"name": call.function.name, "arguments": call.function.arguments}
            for call in message.tool_calls or ()
        ],
        "stop": completion.choices[0].finish_reason,
        "usage": [completion.usage.prompt_tokens, completion.usage.completion_tokens],
    }


def streamed(client: Any, *messages: Any, **more: Any) -> Result:
    options = {"stream_options": {"include_usage": True}}
    with client.chat.completions.stream(**asking(*messages, **more), **options) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    return answered(final) | {"pieces": [piece for piece in pieces if piece]}


def tool_result(client: Any) -> Result:
    choice = {"type": "function", "function": {"name": function["name"]}}
    asked = asking(tool_question, tools=[tool], tool_choice=choice)
    called = client.chat.completions.create(**asked).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps(task["tool_result"])}
        for call in called.tool_calls
    ]
    # The demo model would sooner call again than say what it was told.
    told = asking(tool_question, called, *results, tools=[tool], tool_choice="none")
    return answered(client.chat.completions.create(**told))


def structured(client: Any) -> Result:
    schema = {"name": task["answer"]["name"], "schema": task["answer"]["json"], "strict": True}
    response_format = {"type": "json_schema", "json_schema": schema}
    completion = client.chat.completions.create(**asking(response_format=response_format))
    return {"value": json.loads(completion.choices[0].message.content)}


def of_response(response: Any) -> Result:
    return {
        "text": response.output_text,
        "calls": [
            {"name": item.name, "arguments": item.arguments}
            for item in response.output
            if item.type == "function_call"
        ],
        "usage": [response.usage.input_tokens, response.usage.output_tokens],
    }


def responding(text: str, **more: Any) -> dict[str, Any]:
    limits = {"max_output_tokens": task["max_tokens"], "temperature": 0}
    return {"model": task["model"], "input": text} | limits | more


def response_stream(client: Any, text: str, **more: Any) -> Result:
    with client.responses.stream(**responding(text, **more)) as stream:
        events = list(stream)
        final = stream.get_final_response()
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    return of_response(final) | {"pieces": pieces, "events": [event.type for event in events]}


def checks(client: Any) -> dict[str, Callable[[], Result]]:
    def create(*messages: Any, **more: Any) -> Result:
        return answered(client.chat.completions.create(**asking(*messages, **more)))

    forced = {"tools": [{"type": "function", **function}], "tool_choice": "required"}
    return {
        "plain": create,
        "stream": lambda: streamed(client),
        "system": lambda: create({"role": "system", "content": task["system"]}, question),
        "stop": lambda: create(stop=[task["stop"]]),
        "tool_auto": lambda: create(tool_question, tools=[tool]),
        "tool_any": lambda: create(tool_question, tools=[tool], tool_choice="required"),
        "tool_stream": lambda: streamed(client, tool_question, tools=[tool], tool_choice="required"),
        "tool_result": lambda: tool_result(client),
        "structured": lambda: structured(client),
        "overlong": lambda: create({"role": "user", "content": task["overlong"]}),
        "response": lambda: of_response(client.responses.create(**responding(task["question"]))),
        "response_stream": lambda: response_stream(client, task["question"]),
        "response_tool": lambda: response_stream(client, task["tool_question"], **forced),
    }


report(
    ("openai",),
    checks(plain) | {f"bedrock_{name}": check for name, check in checks(bedrock).items()},
)
