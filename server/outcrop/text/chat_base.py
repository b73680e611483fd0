"""What every chat template takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from outcrop.text.tools import Tool, ToolCall, ToolFormat, ToolResult


class ChatTemplateError(ValueError):
    """The checkpoint's chat template cannot be used, or refuses this conversation."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message. role: system, user, assistant, or another the model knows, as an identifier (so that
    it cannot spell a control token). content: any text; special-token text in it stays text.
    tool_calls: the calls of an assistant's message, which follow its content. tool_results: the results
    that a user's message brings, before its content."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()

    def __post_init__(self) -> None:
        if not self.role.isidentifier():
            raise ValueError(f"role {self.role!r} is not an identifier")


class ChatTemplate(ABC):
    """Turns a conversation into the prompt for the assistant's next message. Thread-safe.

    tool_format: how the model writes calls of tools."""

    tool_format = ToolFormat()

    @abstractmethod
    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        """The ids of the prompt: BOS exactly once if the model uses one, the tools that the model may
        call, the messages in order, and the header of the assistant's answer. Control tokens never come
        from the text of a message, call, result or tool. Raises ChatTemplateError."""


class NoChatTemplate(ChatTemplate):
    """Of a model that continues text and holds no conversations."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        raise ChatTemplateError(self._reason)


@contextmanager
def deep_nesting_refused() -> Iterator[None]:
    """Schemas and arguments are JSON values as deep as a client likes, and are rendered by recursion."""
    try:
        yield
    except RecursionError:
        raise ChatTemplateError("a tool or a call is nested too deeply") from None
