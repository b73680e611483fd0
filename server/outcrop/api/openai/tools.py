"""The tools and the form of an answer that OpenAI's requests ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from outcrop.api.chat import JSON_OBJECT, second_of_its_name
from outcrop.api.field_error import FieldError
from outcrop.api.openai.content import Function
from outcrop.text.tools import ANY, AUTO, Tool, ToolChoice

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def tool_of(function: Function, path: str) -> Tool:
    """path: of the function in the request. Raises FieldError."""
    if not _NAME.fullmatch(function.name):
        raise FieldError(f"{path}.name", "It must be 1 to 64 letters, digits, underscores and dashes.")
    schema = function.parameters or {}
    if schema.get("type", "object") != "object":
        raise FieldError(f"{path}.parameters.type", "It must be 'object'.")
    return Tool(
        function.name, function.description or "", {"type": "object", **schema}, bool(function.strict)
    )


def check_names(tools: Sequence[Tool]) -> None:
    """Raises FieldError for two tools of one name."""
    if (index := second_of_its_name(tools)) is not None:
        raise FieldError(f"tools[{index}]", f"There are two tools of the name {tools[index].name}.")


def choice_of(word: str | None, name: str | None, tools: Sequence[Tool], *, parallel: bool) -> ToolChoice:
    """word: auto, required or any; name: of the one tool to call, instead. Raises FieldError."""
    if name is not None:
        if name not in {tool.name for tool in tools}:
            raise FieldError("tool_choice", f"There is no tool of the name {name[:256]} in tools.")
        return ToolChoice("tool", name, parallel)
    mode = ANY.mode if word in ("required", "any") else AUTO.mode
    if mode == ANY.mode and not tools:
        raise FieldError("tool_choice", "There are no tools to choose from.")
    return ToolChoice(mode, parallel=parallel or not tools)


def schema_of(kind: str, schema: Mapping[str, Any] | None, path: str) -> Mapping[str, Any] | None:
    """The schema of an answer of the kind text, json_object or json_schema. path: where the schema of the
    last belongs. Raises FieldError."""
    if kind == "json_schema":
        if schema is None:
            raise FieldError(path, "This parameter is required.", "missing")
        return schema
    return JSON_OBJECT if kind == "json_object" else None
