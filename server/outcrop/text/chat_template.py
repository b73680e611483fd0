"""Conversations to prompts: the checkpoint's own chat template, or Llama 3's built-in format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from outcrop.text import llama3
from outcrop.text.base import Tokenizer
from outcrop.text.template_sandbox import SandboxedTemplate
from outcrop.text.tools import Tool, ToolCall, ToolFormat, ToolResult

# Noncharacters: Unicode reserves them for use inside a program, so ordinary text does not hold them.
_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_STEPS, _STEPS_PER_MESSAGE = 100_000, 1_000


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
        """The ids of the prompt: BOS exactly once if the model uses one, the messages in order, and the
        header of the assistant's answer. Control tokens never come from a message's content.
        Raises ChatTemplateError."""


class Llama3ChatTemplate(ChatTemplate):
    """Meta's format, token for token that of `llama_models.llama3.chat_format`: header, a blank line,
    the content as it is, end of turn. Each part is encoded by itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises KeyError if the vocabulary lacks Llama 3's control tokens."""
        special = tokenizer.special_tokens
        self._tokenizer = tokenizer
        self._begin = special[llama3.BEGIN_OF_TEXT]
        self._start_header = special[llama3.START_HEADER]
        self._end_header = [special[llama3.END_HEADER], *tokenizer.encode("\n\n")]
        self._end_of_turn = special[llama3.END_OF_TURN]

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        ids = [self._begin]
        for message in messages:
            ids += self._header(message.role)
            ids += self._tokenizer.encode(message.content)
            ids.append(self._end_of_turn)
        return ids + self._header("assistant")

    def _header(self, role: str) -> list[int]:
        return [self._start_header, *self._tokenizer.encode(role), *self._end_header]


class JinjaChatTemplate(ChatTemplate):
    """The chat template that came with a checkpoint.

    What a template renders is text, in which a control token that the template wrote and the same text
    that a user wrote look alike. To tell them apart, each content is rendered between two marks,
    characters that occur in no content. Afterwards control tokens are looked for outside the marks
    alone; the marks are dropped, and what stands between two control tokens is encoded as one plain
    text, as the model's own tokenizer would. White space around a content stays outside its marks, so
    that a template's `trim` works.
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """Raises ChatTemplateError if the source is not a Jinja template."""
        try:
            self._template = SandboxedTemplate(source)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template is not valid Jinja: {error}") from None
        self._tokenizer = tokenizer
        self._marks = [mark for mark in _MARKS if mark not in source]

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        opening, closing = self._unused_marks(messages)
        rendered = self._render(
            [
                {"role": message.role, "content": _marked(message.content, opening, closing)}
                for message in messages
            ]
        )
        ids = self._encode_outside_marks(rendered, opening, closing)
        bos = self._tokenizer.bos_id
        if bos is None:
            return ids
        start = 0
        while ids[start : start + 1] == [bos]:
            start += 1
        return [bos, *ids[start:]]

    def _unused_marks(self, messages: Sequence[ChatMessage]) -> tuple[str, str]:
        unused = [m for m in self._marks if not any(m in message.content for message in messages)]
        if len(unused) < 2:
            raise ChatTemplateError("the messages hold nearly all of the noncharacters U+FDD0 to U+FDEF")
        return unused[0], unused[1]

    def _render(self, messages: list[dict[str, str]]) -> str:
        variables = {
            **self._tokenizer.named_tokens,
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        try:
            return self._template.render(variables, _STEPS + _STEPS_PER_MESSAGE * len(messages))
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the model's chat template refuses this conversation: {error}") from None
        except Exception as error:  # the template's own expressions may raise anything
            raise ChatTemplateError(f"the model's chat template fails: {error!r}") from error

    def _encode_outside_marks(self, rendered: str, opening: str, closing: str) -> list[int]:
        ids: list[int] = []
        plain: list[str] = []  # since the last control token
        template_text, *marked = rendered.split(opening)
        for content, separator, after in (
            ("", closing, template_text),
            *(part.partition(closing) for part in marked),
        ):
            if not separator or closing in after:
                raise ChatTemplateError(
                    "the model's chat template takes a message's content apart, so that its control tokens "
                    "cannot be told from the content's text"
                )
            text, *rest = self._tokenizer.split_special(after)
            plain += (content, text)
            for name, following in zip(rest[::2], rest[1::2], strict=True):
                ids += self._tokenizer.encode("".join(plain))
                ids.append(self._tokenizer.special_tokens[name])
                plain = [following]
        return ids + self._tokenizer.encode("".join(plain))


def _marked(content: str, opening: str, closing: str) -> str:
    core = content.strip()
    if not core:
        return content
    start = len(content) - len(content.lstrip())
    return f"{content[:start]}{opening}{core}{closing}{content[start + len(core) :]}"


def load_chat_template(checkpoint: Path, tokenizer: Tokenizer) -> ChatTemplate:
    """The chat template that `tokenizer` found in its checkpoint, or Llama 3's built-in format if there is
    none and the vocabulary has its control tokens. Raises ChatTemplateError naming the checkpoint."""
    if tokenizer.chat_template is not None:
        try:
            return JinjaChatTemplate(tokenizer.chat_template, tokenizer)
        except ChatTemplateError as error:
            raise ChatTemplateError(f"{checkpoint}: {error}") from None
    try:
        return Llama3ChatTemplate(tokenizer)
    except KeyError as missing:
        raise ChatTemplateError(
            f"{checkpoint}: no chat template, and no token {missing} for Llama 3's own format; "
            "add a chat_template.jinja, or use this model through InvokeModel only"
        ) from None
