"""Llama 3's own prompt format."""

from __future__ import annotations

from collections.abc import Sequence

from outcrop.text import llama3
from outcrop.text.base import Tokenizer
from outcrop.text.chat_base import ChatMessage, ChatTemplate, deep_nesting_refused
from outcrop.text.tools import Tool, ToolFormat
from outcrop.text.tools.prompt import call_text, offer, result_text

_ENVIRONMENT = "Environment: ipython\n\n"


class Llama3ChatTemplate(ChatTemplate):
    """Meta's format, token for token that of `llama_models.llama3.chat_format`: header, a blank line,
    the content as it is, end of turn. Each part is encoded by itself.

    Tools as the Llama 3.1 `prompt_format.md` there has them ("JSON based tool calling"): the system
    message begins with the environment, a user's message behind it offers the tools, calls follow the
    assistant's text, each result is a message of the role ipython. One deviation: where Meta's code
    escapes what is not ASCII in a call's arguments, this leaves it, as Meta's Hugging Face template does.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises KeyError if the vocabulary lacks Llama 3's control tokens."""
        self.tool_format = ToolFormat(tokenizer.special_tokens)
        self._tokenizer = tokenizer
        special = tokenizer.special_tokens
        self._begin = special[llama3.BEGIN_OF_TEXT]
        self._start_header = special[llama3.START_HEADER]
        self._end_header = [special[llama3.END_HEADER], *tokenizer.encode("\n\n")]
        self._end_of_turn = special[llama3.END_OF_TURN]

    @deep_nesting_refused()
    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        ids = [self._begin]
        for message in _with_offer(messages, tools) if tools else messages:
            for result in message.tool_results:
                ids += self._message("ipython", result_text(result))
            if message.content or not message.tool_results:
                calls = (call_text(call, type="function") for call in message.tool_calls)
                ids += self._message(message.role, message.content, *calls)
        return ids + self._header("assistant")

    def _message(self, role: str, *parts: str) -> list[int]:
        ids = self._header(role)
        for part in parts:
            ids += self._tokenizer.encode(part)
        return [*ids, self._end_of_turn]

    def _header(self, role: str) -> list[int]:
        return [self._start_header, *self._tokenizer.encode(role), *self._end_header]


def _with_offer(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> list[ChatMessage]:
    system, *rest = (
        messages if messages and messages[0].role == "system" else (ChatMessage("system", ""), *messages)
    )
    return [
        ChatMessage("system", _ENVIRONMENT + system.content),
        ChatMessage("user", offer(tools)),
        *rest,
    ]
