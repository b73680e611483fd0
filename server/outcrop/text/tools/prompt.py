"""Tools, calls and results as text, for the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from outcrop.text.chat_base import ChatMessage
from outcrop.text.tools.tool import Tool, ToolCall, ToolResult

_OFFER = """\
Answer the user's question by making use of the following functions if needed.
If none of the function can be used, please say so.
Here is a list of functions in JSON format:
{functions}

Return function calls in JSON format"""
_CALL_FORM = (
    '{"name": function name, "parameters": dictionary of argument name and its value}. '
    "Do not use variables. The results of the calls follow as function results."
)


def definition(tool: Tool) -> dict[str, Any]:
    """The tool as models are trained to read it."""
    described = {"description": tool.description} if tool.description else {}
    function = {"name": tool.name, **described, "parameters": dict(tool.schema)}
    return {"type": "function", "function": function}


def offer(tools: Sequence[Tool]) -> str:
    """The instruction that offers tools, in the words of Meta's prompt for tool calls in JSON (the Llama
    3.1 `prompt_format.md` of llama_models), which leaves the form of a call open: models that were not
    trained on this prompt need to be told."""
    functions = "\n".join(json.dumps(definition(tool), indent=4, ensure_ascii=False) for tool in tools)
    return f"{_OFFER.format(functions=functions)}: {_CALL_FORM}"


def call_text(call: ToolCall, **head: str) -> str:
    """A past call in the form that the model is to write."""
    return json.dumps({**head, "name": call.name, "parameters": dict(call.arguments)}, ensure_ascii=False)


def result_text(result: ToolResult) -> str:
    return f"Error: {result.content}" if result.is_error else result.content


def with_named_results(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """The messages with each result named as its call is."""
    names: dict[str, str] = {}
    named = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        results = tuple(
            replace(result, name=result.name or names.get(result.call_id, ""))
            for result in message.tool_results
        )
        named.append(replace(message, tool_results=results))
    return named


def as_plain_messages(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> list[ChatMessage]:
    """A conversation with tools for a template that knows none: the offer stands in the system message,
    calls are text of the assistant's message, results text of the user's."""
    plain = [
        ChatMessage(message.role, "\n".join(_parts(message))) for message in with_named_results(messages)
    ]
    if not tools:
        return plain
    system = plain.pop(0).content if plain and plain[0].role == "system" else ""
    return [ChatMessage("system", "\n\n".join(filter(None, (system, offer(tools))))), *plain]


def _parts(message: ChatMessage) -> Iterable[str]:
    for result in message.tool_results:
        described = {"name": result.name, "error" if result.is_error else "result": result.content}
        yield f"Function result: {json.dumps(described, ensure_ascii=False)}"
    if message.content or not (message.tool_calls or message.tool_results):
        yield message.content
    for call in message.tool_calls:
        yield call_text(call)
