"""Shapes of the messages of a chat completion (the types of openai-python 3.57).

Kinds that are known and cannot be honoured are here too, so that they are refused by their name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A structure of which every member counts: one that is not known is refused. null is absence."""


class TextPart(Shape, kw_only=True, tag_field="type", tag="text"):
    text: str


class RefusalPart(Shape, kw_only=True, tag_field="type", tag="refusal"):
    refusal: str


class ImagePart(Shape, tag_field="type", tag="image_url"):
    image_url: Any = None


class AudioPart(Shape, tag_field="type", tag="input_audio"):
    input_audio: Any = None


class FilePart(Shape, tag_field="type", tag="file"):
    file: Any = None


AnyPart = TextPart | RefusalPart | ImagePart | AudioPart | FilePart
Content = str | list[AnyPart]


class FunctionCall(Shape, kw_only=True):
    name: str
    arguments: str


class ToolCallPart(Shape, kw_only=True):
    """index: streams number calls; clients send it back."""

    id: str
    function: FunctionCall
    type: Literal["function"] | None = None
    index: int | None = None


class SystemMessage(Shape, kw_only=True, tag_field="role", tag="system"):
    content: Content
    name: str | None = None


class DeveloperMessage(Shape, kw_only=True, tag_field="role", tag="developer"):
    content: Content
    name: str | None = None


class UserMessage(Shape, kw_only=True, tag_field="role", tag="user"):
    content: Content
    name: str | None = None


class AssistantMessage(Shape, kw_only=True, tag_field="role", tag="assistant"):
    """refusal, annotations, audio, function_call: as answers have them; all but a refusal's text add nothing,
    and the last two are null in answers of this server."""

    content: Content | None = None
    tool_calls: list[ToolCallPart] | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None


class ToolMessage(Shape, kw_only=True, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str
    name: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Shape, kw_only=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Shape, kw_only=True):
    type: Literal["function"]
    function: Function


class NamedFunction(Shape, kw_only=True):
    name: str


class NamedToolChoice(Shape, kw_only=True):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Shape, kw_only=True):
    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Shape, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
