"""Grammars that hold a model to calls of tools, in llguidance's Lark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from outcrop.text.grammar import json_schema_rule
from outcrop.text.tools.tool import Tool

MAX_CALLS = 32  # in one answer, so that a weak model does not call for ever
_SEPARATOR = r'("; " | "\n")?'
_HEAD = r'\{("type": "function", )?"name": "'
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


def calls_grammar(tools: Sequence[Tool], most: int) -> str:
    """One or more calls of any of the tools, at most `most`: `{"name": "f", "parameters": {...}}` with
    arguments that the tool's schema allows. Raises GrammarError for a schema that cannot be used."""
    return "\n".join((f"start: call{_more_calls(most - 1)}", *_call_rules(tools)))


def text_or_calls_grammar(tools: Sequence[Tool], most: int = MAX_CALLS) -> str:
    """Text, or text (perhaps none) and then calls, at most `most`. A strict tool is called with arguments
    that its schema allows, another with any object.

    The text must not hold what the parser would take for the beginning of a call, or a call could hide in
    it. So text ends at the first thing that looks like a call's head (`lazy`), up to the name; with a
    tool's name a call follows, with anything else (`OTHER`) the text goes on.
    """
    tools = [tool if tool.strict else Tool(tool.name, tool.description, {}) for tool in tools]
    names = "|".join(_verbatim(_name_end(tool)) for tool in tools)
    text = f"/(?s:.*)/ & ~/(?s:.*)({_call_beginnings(tools)})(?s:.*)/"
    return "\n".join(
        (
            "start: TEXT | head rest",
            f"rest: named{_more_calls(most - 1)} | OTHER | other_head rest",
            f"TEXT: {text}",
            f"OTHER: {text} & ~/({names})(?s:.*)/",
            f"head[lazy]: TEXT /{_HEAD}/",
            f"other_head[lazy]: OTHER /{_HEAD}/",
            *_call_rules(tools),
        )
    )


def _more_calls(most: int) -> str:
    return f" ({_SEPARATOR} call){{0,{most}}}" if most else ""


def _call_rules(tools: Sequence[Tool]) -> Iterable[str]:
    yield f"call: /{_HEAD}/ named"
    yield f'named: ({" | ".join(f"name_{i} args_{i}" for i in range(len(tools)))}) "}}"'
    for i, tool in enumerate(tools):
        yield f'name_{i}: /{_verbatim(_name_end(tool))}, "parameters": /'
        yield f"args_{i}: {json_schema_rule(_arguments_schema(tool))}"


def _arguments_schema(tool: Tool) -> dict[str, Any]:
    """The tool's schema for an object without properties that it does not name, unless it speaks of such:
    JSON Schema lets them pass, but a model that may invent arguments does."""
    schema = {**tool.schema, "type": "object"}
    properties = schema.get("properties")
    if (
        isinstance(properties, dict)
        and not _BEYOND_PROPERTIES & schema.keys()
        and set(schema.get("required", ())) <= properties.keys()
    ):
        schema["additionalProperties"] = False
    return schema


def _name_end(tool: Tool) -> str:
    """The name as JSON, behind its opening quote."""
    return json.dumps(tool.name)[1:]


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
