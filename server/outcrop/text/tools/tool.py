"""A tool, a call of it, and the result of that call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. description: may be "". schema: JSON Schema of the arguments.
    strict: even where the model is free to answer in text, a call's arguments must satisfy the schema."""

    name: str
    description: str
    schema: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made in an earlier turn. id: what its result refers to it by."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered. call_id: the id of the call; name: the tool's, "" to look it up by call_id."""

    content: str
    call_id: str
    name: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """auto: the model answers in text or calls tools; any: it calls at least one tool; tool: it makes one
    call of the tool `name`. parallel: whether it may make several calls in one answer."""

    mode: Literal["auto", "any", "tool"] = "auto"
    name: str = ""
    parallel: bool = True


AUTO = ToolChoice("auto")
ANY = ToolChoice("any")
