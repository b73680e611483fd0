"""Shapes of a Responses request's input and tools (the types of openai-python 3.57), and the input as the
messages of a chat completion.

Kinds that are known and cannot be honoured are here too, so that they are refused by their name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from outcrop.api.field_error import FieldError, unsupported
from outcrop.api.openai.content import (
    AssistantMessage,
    DeveloperMessage,
    FunctionCall,
    Message,
    Shape,
    SystemMessage,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)

_ROLES: Mapping[str, Callable[..., Message]] = {
    "user": UserMessage,
    "assistant": AssistantMessage,
    "system": SystemMessage,
    "developer": DeveloperMessage,
}


class InputText(Shape, kw_only=True, tag_field="type", tag="input_text"):
    text: str


class OutputText(Shape, kw_only=True, tag_field="type", tag="output_text"):
    text: str
    annotations: Any = None
    logprobs: Any = None


class Refusal(Shape, kw_only=True, tag_field="type", tag="refusal"):
    refusal: str


class InputImage(Shape, tag_field="type", tag="input_image"):
    image_url: Any = None
    file_id: Any = None
    detail: Any = None


class InputFile(Shape, tag_field="type", tag="input_file"):
    file_data: Any = None
    file_id: Any = None
    file_url: Any = None
    filename: Any = None


Parts = str | list[InputText | OutputText | Refusal | InputImage | InputFile]


class InputItem(Shape):
    """An item of any type: `type` may be left out of a message, so it cannot tell shapes apart. id, status
    and phase: as answers have them. summary and encrypted_content: of reasoning, which adds nothing to a
    prompt."""

    type: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Parts | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Parts | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    summary: Any = None
    encrypted_content: Any = None


class FunctionItem(Shape):
    """A tool; name is left out of those that are no functions."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedChoice(Shape, kw_only=True):
    type: Literal["function"]
    name: str


class TextFormat(Shape, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(Shape):
    format: TextFormat | None = None
    verbosity: str | None = None


def message_of(item: InputItem, path: str) -> Message:
    """The item as a message of its own. Raises FieldError."""
    match item.type:
        case None | "message":
            if item.role is None:
                raise FieldError(f"{path}.role", "This parameter is required.", "missing")
            return _ROLES[item.role](content=_text(item.content, f"{path}.content"))
        case "function_call":
            call = FunctionCall(
                name=_required(item.name, f"{path}.name"),
                arguments=_required(item.arguments, f"{path}.arguments"),
            )
            part = ToolCallPart(id=_required(item.call_id, f"{path}.call_id"), function=call)
            return AssistantMessage(tool_calls=[part])
        case "function_call_output":
            output = _text(item.output, f"{path}.output")
            return ToolMessage(content=output, tool_call_id=_required(item.call_id, f"{path}.call_id"))
        case "reasoning":
            return AssistantMessage()
        case other:
            raise unsupported(f"{path}.type", f"{other[:256]!r} is an item of OpenAI's servers.")


def _required(value: str | None, path: str) -> str:
    if value is None:
        raise FieldError(path, "This parameter is required.", "missing")
    return value


def _text(parts: Parts | None, path: str) -> str:
    if isinstance(parts, str):
        return parts
    if parts is None:
        raise FieldError(path, "This parameter is required.", "missing")
    texts = []
    for index, part in enumerate(parts):
        match part:
            case InputText(text=text) | OutputText(text=text) | Refusal(refusal=text):
                texts.append(text)
            case InputImage() | InputFile():
                kind = "images" if isinstance(part, InputImage) else "files"
                raise unsupported(f"{path}[{index}]", f"the model reads no {kind}. Remove it and try again.")
    return "\n".join(texts)
