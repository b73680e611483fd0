"""The request shapes of Converse and ConverseStream.

Members are optional here even where the service requires them: an absent one is a ValidationException that
names it, which only `validate` can word. Members of unions that this server refuses are kept as raw JSON,
enough to tell that they were given. Unknown members are ignored, as the service does.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw


class Shape(msgspec.Struct, rename="camel", kw_only=True):
    """A structure of the service model: camelCase on the wire."""


class CachePoint(Shape):
    type: str | None = None
    ttl: str | None = None


class ContentBlock(Shape):
    """Union."""

    text: str | None = None
    image: Raw = Raw()
    document: Raw = Raw()
    video: Raw = Raw()
    audio: Raw = Raw()
    tool_use: Raw = Raw()
    tool_result: Raw = Raw()
    guard_content: Raw = Raw()
    cache_point: CachePoint | None = None
    reasoning_content: Raw = Raw()
    citations_content: Raw = Raw()
    search_result: Raw = Raw()
    tool_addition: Raw = Raw()
    tool_removal: Raw = Raw()


class SystemContentBlock(Shape):
    """Union."""

    text: str | None = None
    guard_content: Raw = Raw()
    cache_point: CachePoint | None = None


class Message(Shape):
    role: str | None = None
    content: list[ContentBlock] | None = None


class InferenceConfiguration(Shape):
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None


class PerformanceConfiguration(Shape):
    latency: str | None = None


class ServiceTier(Shape):
    type: str | None = None


class OutputConfig(Shape):
    text_format: Raw = Raw()
    effort: str | None = None


class ConverseRequest(Shape):
    messages: list[Message] | None = None
    system: list[SystemContentBlock] | None = None
    inference_config: InferenceConfiguration | None = None
    tool_config: Raw = Raw()
    guardrail_config: Raw = Raw()
    additional_model_request_fields: Raw = Raw()
    prompt_variables: Raw = Raw()
    additional_model_response_field_paths: list[str] | None = None
    request_metadata: dict[str, str] | None = None
    performance_config: PerformanceConfiguration | None = None
    service_tier: ServiceTier | None = None
    output_config: OutputConfig | None = None


_EMPTY_AT_MOST = 64
"""Bytes: a longer structure is taken to have members without looking for them."""


def is_given(member: object) -> bool:
    """Whether a member is there and not null."""
    if isinstance(member, Raw):
        return bytes(memoryview(member)[:5]) not in (b"", b"null")
    return member is not None


def has_content(member: Raw) -> bool:
    """Whether a structure is there and has members: clients send empty ones for nothing."""
    if not is_given(member):
        return False
    return memoryview(member).nbytes > _EMPTY_AT_MOST or b"".join(bytes(member).split()) not in (b"{}", b"[]")


def given_members(union: Shape) -> list[str]:
    """The wire names of the members that are set; of a union there must be exactly one."""
    fields = msgspec.structs.fields(type(union))
    return [field.encode_name for field in fields if is_given(getattr(union, field.name))]


def member_names(union: type[Shape]) -> list[str]:
    """The wire names of all members."""
    return [field.encode_name for field in msgspec.structs.fields(union)]
