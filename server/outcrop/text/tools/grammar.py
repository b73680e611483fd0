"""Grammars that hold a model to calls of tools, in llguidance's Lark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from outcrop.text.grammar import JSON_OPTIONS
from outcrop.text.tools.tool import Tool

_MAX_CALLS = 32  # in one answer, so that a weak model does not call for ever
_SEPARATOR = r'("; " | "\n")?'
_SPACE = r"[ \t\r\n]*"
# What else may say which properties an object has, or must have.
_BEYOND_PROPERTIES = frozenset(
    (
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "dependentRequired",
        "dependentSchemas",
        "if",
        "minProperties",
        "oneOf",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
    )
)


def calls_grammar(tools: Sequence[Tool], most: int = _MAX_CALLS) -> str:
    """One or more calls of any of the tools, at most `most`: `{"name": "f", "parameters": {...}}` with
    arguments that the tool's schema allows."""
    heads = [f"head_{i}: /{_head(tool)}/" for i, tool in enumerate(tools)]
    return "\n".join((f"start: {_calls('call', most)}", *heads, *_calls_rules(tools)))


def text_or_calls_grammar(tools: Sequence[Tool]) -> str:
    """Text, or text (perhaps none) and then calls. A strict tool is called with arguments that its schema
    allows, another with any object.

    The text must not hold what the parser would take for the beginning of a call, or a call could hide in
    it. So a call's head ends the text before it, at its first occurrence (`lazy`).
    """
    tools = [tool if tool.strict else Tool(tool.name, tool.description, {}) for tool in tools]
    indices = range(len(tools))
    return "\n".join(
        (
            f"start: TEXT | ({' | '.join(f'last_{i} args_{i}' for i in indices)}) "
            f'"}}" ({_SEPARATOR} call){{0,{_MAX_CALLS - 1}}}',
            f"TEXT: /(?s:.*)/ & ~/(?s:.*)({_call_beginnings(tools)})(?s:.*)/",
            *(f"last_{i}[lazy]: TEXT /{_head(tools[i])}/" for i in indices),
            *(f"head_{i}: /{_head(tools[i])}/" for i in indices),
            *_calls_rules(tools),
        )
    )


def _calls(symbol: str, most: int) -> str:
    return f"{symbol} ({_SEPARATOR} {symbol}){{0,{most - 1}}}" if most > 1 else symbol


def _calls_rules(tools: Sequence[Tool]) -> Iterable[str]:
    yield "call: " + " | ".join(f'head_{i} args_{i} "}}"' for i in range(len(tools)))
    for i, tool in enumerate(tools):
        yield f"args_{i}: %json {json.dumps(_arguments_schema(tool))}"


def _arguments_schema(tool: Tool) -> dict[str, Any]:
    """The tool's schema for an object without properties that it does not name, unless it speaks of such:
    JSON Schema lets them pass, but a model that may invent arguments does."""
    schema = {**tool.schema, "type": "object", "x-guidance": dict(JSON_OPTIONS)}
    properties = schema.get("properties")
    if (
        isinstance(properties, dict)
        and not _BEYOND_PROPERTIES & schema.keys()
        and set(schema.get("required", ())) <= properties.keys()
    ):
        schema["additionalProperties"] = False
    return schema


def _head(tool: Tool) -> str:
    return rf'\{{("type": "function", )?"name": {_verbatim(json.dumps(tool.name))}, "parameters": '


def _call_beginnings(tools: Sequence[Tool]) -> str:
    """How anything begins that `ToolParser` may take for a call."""
    names = "|".join(
        _verbatim(spelled)
        for tool in tools
        for spelled in {json.dumps(tool.name), json.dumps(tool.name, ensure_ascii=False)}
    )
    in_python = "|".join(_verbatim(tool.name) for tool in tools)
    members = (
        f'name"{_SPACE}:{_SPACE}({names})',
        f'type"{_SPACE}:{_SPACE}"function"',
        f'(function|parameters|arguments)"{_SPACE}:',
    )
    return rf'\{{{_SPACE}"({"|".join(members)})|\[{_SPACE}({in_python})(\.call)?\(|<\|python_tag\|>'


def _verbatim(text: str) -> str:
    """A regular expression of just this text, whatever it holds."""
    return "".join(
        character if character.isascii() and character.isalnum() else f"\\x{{{ord(character):x}}}"
        for character in text
    )
