"""Shapes of the content blocks of a Messages request (the types of anthropic-sdk-python 2.14).

Kinds that are known and cannot be honoured are here too, so that they are refused by their name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A structure of which every member counts: one that is not known is refused. null is absence."""


class CacheControl(Shape):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Shape, kw_only=True, tag_field="type"):
    """A content block, told apart by its `type`."""

    cache_control: CacheControl | None = None


class TextBlock(Block, kw_only=True, tag="text"):
    """citations: of an earlier answer; its text says what it said."""

    text: str
    citations: Any = None


class ImageBlock(Block, kw_only=True, tag="image"):
    source: Any = None


class Citations(Shape):
    enabled: bool | None = None


class Source(Shape, kw_only=True, tag_field="type"):
    """Where a document comes from."""


class BytesSource(Source, kw_only=True, tag="base64"):
    media_type: Literal["application/pdf"]
    data: bytes


class TextSource(Source, kw_only=True, tag="text"):
    media_type: Literal["text/plain"]
    data: str


class ContentSource(Source, kw_only=True, tag="content"):
    content: str | list[TextBlock | ImageBlock]


class UrlSource(Source, kw_only=True, tag="url"):
    url: str


class FileSource(Source, kw_only=True, tag="file"):
    file_id: str


class DocumentBlock(Block, kw_only=True, tag="document"):
    source: BytesSource | TextSource | ContentSource | UrlSource | FileSource
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None


class SearchResultBlock(Block, kw_only=True, tag="search_result"):
    source: str
    title: str
    content: list[TextBlock]
    citations: Citations | None = None


class ToolUseBlock(Block, kw_only=True, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]
    caller: Any = None


class ToolResultBlock(Block, kw_only=True, tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(Shape, kw_only=True, tag_field="type", tag="thinking"):
    """Of an earlier answer; it adds nothing to a prompt."""

    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Shape, kw_only=True, tag_field="type", tag="redacted_thinking"):
    """Of an earlier answer; it adds nothing to a prompt."""

    data: str


UserBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolResultBlock
AssistantBlock = TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock
AnyBlock = UserBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock


class UserMessage(Shape, kw_only=True, tag_field="role", tag="user"):
    content: str | list[UserBlock]


class AssistantMessage(Shape, kw_only=True, tag_field="role", tag="assistant"):
    content: str | list[AssistantBlock]


Message = UserMessage | AssistantMessage
