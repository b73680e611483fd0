"""The messages of a chat completion in the terms of a chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence

from outcrop.api.field_error import FieldError, unsupported
from outcrop.api.openai.content import (
    AssistantMessage,
    Content,
    DeveloperMessage,
    Message,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from outcrop.text.chat_template import ChatMessage
from outcrop.text.tools import ToolCall, ToolResult

_NAMED = {"image_url": "images", "input_audio": "audio", "file": "files"}


def chat_messages(messages: Sequence[Message], name: str = "messages") -> list[ChatMessage]:
    """System and developer messages that come first are one system prompt, and messages in a row by one side
    are one turn, as most models want it; results of tools are of the user's side. name: of the list in the
    request. Raises FieldError."""
    if not messages:
        raise FieldError(name, "There must be at least one message.")
    turns: list[list[ChatMessage]] = []
    called: set[str] = set()
    for index, message in enumerate(messages):
        path = f"{name}[{index}]"
        turn = _turn(path, message)
        for result in turn.tool_results:
            if result.call_id not in called:
                raise FieldError(
                    f"{path}.tool_call_id", "A tool message must answer one of the tool_calls before it."
                )
        called.update(call.id for call in turn.tool_calls)
        if turns and turns[-1][0].role == turn.role:
            turns[-1].append(turn)
        else:
            turns.append([turn])
    if turns[-1][0].role != "user":
        raise FieldError(name, "The last message must be of the user or of a tool.")
    return [_joined(turn) for turn in turns]


def _turn(path: str, message: Message) -> ChatMessage:
    match message:
        case SystemMessage() | DeveloperMessage():
            return ChatMessage("system", _text(f"{path}.content", message.content))
        case UserMessage():
            return ChatMessage("user", _text(f"{path}.content", message.content))
        case ToolMessage():
            text = _text(f"{path}.content", message.content)
            return ChatMessage("user", "", tool_results=(ToolResult(text, message.tool_call_id),))
        case AssistantMessage():
            return _assistant(path, message)


def _assistant(path: str, message: AssistantMessage) -> ChatMessage:
    if message.function_call is not None:
        raise unsupported(f"{path}.function_call", "use tool_calls, which took its place.")
    if message.audio is not None:
        raise unsupported(f"{path}.audio", "the model reads text. Remove it and try again.")
    calls = tuple(
        _call(f"{path}.tool_calls[{index}]", call) for index, call in enumerate(message.tool_calls or ())
    )
    text = _text(f"{path}.content", message.content) if message.content is not None else message.refusal or ""
    return ChatMessage("assistant", text, calls)


def _call(path: str, call: ToolCallPart) -> ToolCall:
    """A call whose arguments are a JSON object. An empty text is one without arguments."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise FieldError(f"{path}.function.arguments", "It must be the text of a JSON object.")
    return ToolCall(call.function.name, arguments, call.id)


def _text(path: str, content: Content) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for index, part in enumerate(content):
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, RefusalPart):
            texts.append(part.refusal)
        else:
            kind = str(part.__struct_config__.tag)
            raise unsupported(
                f"{path}[{index}]", f"the model reads no {_NAMED[kind]}. Remove it and try again."
            )
    return "\n".join(texts)


def _joined(messages: Sequence[ChatMessage]) -> ChatMessage:
    return ChatMessage(
        messages[0].role,
        "\n".join(filter(None, (each.content for each in messages))),
        tuple(call for each in messages for call in each.tool_calls),
        tuple(result for each in messages for result in each.tool_results),
    )
