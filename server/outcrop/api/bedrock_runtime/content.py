"""Shapes of the turns of a conversation and of the blocks in them."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from outcrop.api.bedrock_runtime.citations import CitationsContentBlock
from outcrop.api.bedrock_runtime.media import (
    AudioBlock,
    DocumentBlock,
    ImageBlock,
    SearchResultBlock,
    VideoBlock,
)
from outcrop.api.shapes import REQUIRED, Must, Shape, Union

TOOL_NAME = Must(required=True, size=(1, 64), pattern=re.compile("[a-zA-Z0-9_-]+"))
_TOOL_USE_ID = Must(required=True, size=(1, 64), pattern=re.compile("[a-zA-Z0-9_.:-]+"))

ROLES = ("user", "assistant", "system")
CACHE_TTLS = ("5m", "1h")
_QUALIFIERS = ("grounding_source", "query", "guard_content")


class CachePointBlock(Shape):
    type: Annotated[str | None, Must(required=True, one_of=("default",))] = None
    ttl: Annotated[str | None, Must(one_of=CACHE_TTLS)] = None


class GuardrailConverseTextBlock(Shape):
    text: Annotated[str | None, REQUIRED] = None
    qualifiers: list[Annotated[str, Must(one_of=_QUALIFIERS)]] | None = None


class GuardrailConverseImageSource(Union):
    data: Annotated[bytes | None, Must(size=(1, None))] = msgspec.field(default=None, name="bytes")


class GuardrailConverseImageBlock(Shape):
    format: Annotated[str | None, Must(required=True, one_of=("png", "jpeg"))] = None
    source: Annotated[GuardrailConverseImageSource | None, REQUIRED] = None


class GuardrailConverseContentBlock(Union):
    text: GuardrailConverseTextBlock | None = None
    image: GuardrailConverseImageBlock | None = None


class ReasoningTextBlock(Shape):
    text: Annotated[str | None, REQUIRED] = None
    signature: str | None = None


class ReasoningContentBlock(Union):
    reasoning_text: ReasoningTextBlock | None = None
    redacted_content: bytes | None = None


class ToolUseBlock(Shape):
    tool_use_id: Annotated[str | None, _TOOL_USE_ID] = None
    name: Annotated[str | None, TOOL_NAME] = None
    input: Annotated[Any, REQUIRED] = None
    type: Annotated[str | None, Must(one_of=("server_tool_use",))] = None


class ToolResultContentBlock(Union):
    json: Any = None
    text: str | None = None
    image: ImageBlock | None = None
    document: DocumentBlock | None = None
    video: VideoBlock | None = None
    search_result: SearchResultBlock | None = None


class ToolResultBlock(Shape):
    tool_use_id: Annotated[str | None, _TOOL_USE_ID] = None
    content: Annotated[list[ToolResultContentBlock] | None, REQUIRED] = None
    status: Annotated[str | None, Must(one_of=("success", "error"))] = None
    type: str | None = None


class ToolReference(Shape):
    type: Annotated[str | None, Must(size=(1, 64))] = None
    name: Annotated[str | None, Must(size=(1, 128))] = None
    server_name: Annotated[str | None, Must(size=(1, 128))] = None


class ToolAdditionBlock(Shape):
    tool: Annotated[ToolReference | None, REQUIRED] = None


class ToolRemovalBlock(Shape):
    tool: Annotated[ToolReference | None, REQUIRED] = None


class ContentBlock(Union):
    text: str | None = None
    image: ImageBlock | None = None
    document: DocumentBlock | None = None
    video: VideoBlock | None = None
    audio: AudioBlock | None = None
    tool_use: ToolUseBlock | None = None
    tool_result: ToolResultBlock | None = None
    guard_content: GuardrailConverseContentBlock | None = None
    cache_point: CachePointBlock | None = None
    reasoning_content: ReasoningContentBlock | None = None
    citations_content: CitationsContentBlock | None = None
    search_result: SearchResultBlock | None = None
    tool_addition: ToolAdditionBlock | None = None
    tool_removal: ToolRemovalBlock | None = None


class SystemContentBlock(Union):
    text: Annotated[str | None, Must(size=(1, None))] = None
    guard_content: GuardrailConverseContentBlock | None = None
    cache_point: CachePointBlock | None = None


class Message(Shape):
    role: Annotated[str | None, Must(required=True, one_of=ROLES)] = None
    content: Annotated[list[ContentBlock] | None, REQUIRED] = None
