"""What a client may ask of the Messages API, on Anthropic's own route and as the native body of Claude."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from outcrop.api.anthropic.content import CacheControl, Message, Shape, TextBlock
from outcrop.api.chat import second_of_its_name
from outcrop.api.field_error import FieldError, unsupported
from outcrop.api.sampling import MAX_SEED, SamplingExtras
from outcrop.text.tools import ANY, AUTO, Tool, ToolChoice

MAX_STOPS = 8191
"""Stop sequences of one request, as on Amazon Bedrock."""

_Stop = Annotated[str, Meta(min_length=1, max_length=1024)]
_Unit = Annotated[float, Meta(ge=0, le=1)]


class ToolParam(Shape):
    """eager_input_streaming: arguments are streamed as they come, always."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None


class ToolChoiceParam(Shape):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Format(Shape):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Shape):
    format: Format | None = None
    effort: str | None = None


class Metadata(Shape):
    user_id: str | None = None


class Thinking(Shape):
    type: str
    budget_tokens: Any = None
    display: Any = None


class MessagesRequest(Shape):
    """The parameters of POST /v1/messages, and `anthropic_version` and `anthropic_beta` of Amazon Bedrock.

    A beta only admits further members, each of which is known here or refused by itself. metadata and
    service_tier change no answer.
    """

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    model: str | None = None
    system: str | list[TextBlock] | None = None
    temperature: _Unit | None = None
    top_p: _Unit | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    stop_sequences: Annotated[list[_Stop], Meta(max_length=MAX_STOPS)] | None = None
    tools: list[ToolParam] | None = None
    tool_choice: ToolChoiceParam | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    thinking: Thinking | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    cache_control: CacheControl | None = None
    stream: bool | None = None
    anthropic_version: str | None = None
    anthropic_beta: list[str] | None = None

    @property
    def schema(self) -> dict[str, Any] | None:
        """Of the whole answer."""
        config = self.output_config
        chosen = config.format if config is not None and config.format is not None else self.output_format
        return chosen.schema if chosen is not None else None

    @property
    def marks_cache(self) -> bool:
        """Whether any part of the prompt has a cache breakpoint: only then the usage tells what the prefix
        cache did, as with Converse's cache points."""
        return any(mark is not None for mark in self._cache_marks())

    def extras(self) -> SamplingExtras:
        return SamplingExtras(top_k=self.top_k or 0)

    def offered(self) -> list[Tool]:
        """The tools that the model may call: none where it is told to call none. Raises FieldError."""
        tools = [_tool(index, tool) for index, tool in enumerate(self.tools or ())]
        if (index := second_of_its_name(tools)) is not None:
            raise FieldError(f"tools[{index}].name", "Tool names must be unique.")
        return [] if self.tool_choice is not None and self.tool_choice.type == "none" else tools

    def choice(self, tools: Sequence[Tool]) -> ToolChoice:
        """Raises FieldError."""
        given = self.tool_choice
        if given is None or given.type == "none":
            return AUTO
        if not tools:
            raise FieldError("tool_choice", "tool_choice may only be specified while providing tools.")
        parallel = not given.disable_parallel_tool_use
        if given.type == "tool":
            if given.name not in {tool.name for tool in tools}:
                raise FieldError("tool_choice.name", "There is no tool of this name in tools.")
            return ToolChoice("tool", given.name or "", parallel)
        base = ANY if given.type == "any" else AUTO
        return base if parallel else ToolChoice(base.mode, parallel=False)

    def refuse_unsupported(self) -> None:
        """Raises FieldError for what would change the answer and is not done here."""
        if self.thinking is not None and self.thinking.type != "disabled":
            raise unsupported("thinking", "the model does not think aloud. Remove it and try again.")
        if self.output_config is not None and self.output_config.effort is not None:
            raise unsupported("output_config.effort", "the model knows one effort. Remove it and try again.")
        if self.schema is not None and self.tools:
            path = "output_format" if self.output_format is not None else "output_config.format"
            raise unsupported(path, "a format can't be used together with tools. Remove one of them.")

    def _cache_marks(self) -> Iterator[CacheControl | None]:
        yield self.cache_control
        for tool in self.tools or ():
            yield tool.cache_control
        for block in self.system if isinstance(self.system, list) else ():
            yield block.cache_control
        for message in self.messages:
            for each in message.content if isinstance(message.content, list) else ():
                yield getattr(each, "cache_control", None)


DECODER = msgspec.json.Decoder(MessagesRequest)


def _tool(index: int, tool: ToolParam) -> Tool:
    path = f"tools[{index}]"
    if tool.type not in (None, "custom"):
        raise unsupported(f"{path}.type", f"{tool.type[:256]!r} is a tool of Anthropic's servers.")
    if tool.input_schema is None:
        raise FieldError(f"{path}.input_schema", "This parameter is required.", "missing")
    if tool.input_schema.get("type", "object") != "object":
        raise FieldError(f"{path}.input_schema.type", "It must be 'object'.")
    return Tool(tool.name, tool.description or "", {"type": "object", **tool.input_schema}, bool(tool.strict))
