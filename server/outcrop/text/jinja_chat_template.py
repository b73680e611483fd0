"""The chat template that came with a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jinja2

from outcrop.text.base import Tokenizer
from outcrop.text.chat_base import ChatMessage, ChatTemplate, ChatTemplateError, deep_nesting_refused
from outcrop.text.marks import MARKS, MarkError, Marks, strings_in
from outcrop.text.template_sandbox import SandboxedTemplate
from outcrop.text.tools import Tool, ToolCall, ToolFormat
from outcrop.text.tools.prompt import as_plain_messages, definition, result_text, with_named_results

_STEPS, _STEPS_PER_PART = 100_000, 1_000


class JinjaChatTemplate(ChatTemplate):
    """A checkpoint's own chat template.

    What a template renders is text, in which a control token that the template wrote and the same text
    that a user wrote look alike. To tell them apart, each text from outside (contents, and the strings
    in tools, calls and results) is rendered between two marks, characters that occur in none of them.
    Afterwards control tokens are looked for outside the marks alone; the marks are dropped, and what
    stands between two control tokens is encoded as one plain text, as the model's own tokenizer would.

    A template that uses the variable `tools` is given tools, calls and results in the form that
    `transformers` gives them. Some take one call a message and no text beside it (Llama 3.1's): for
    these, a turn with more becomes several messages. For a template that knows no tools, they become
    text of ordinary messages.
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """Raises ChatTemplateError if the source is not a Jinja template."""
        self.tool_format = ToolFormat(tokenizer.special_tokens)
        self._tokenizer = tokenizer
        try:
            self._template = SandboxedTemplate(source)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template is not valid Jinja: {error}") from None
        self._usable_marks = [mark for mark in MARKS if mark not in source]
        self._knows_tools = "tools" in self._template.variables

    @deep_nesting_refused()
    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        if not self._knows_tools:
            messages, tools = as_plain_messages(messages, tools), ()
        try:
            ids = self._encode(with_named_results(messages), tools)
        except MarkError as error:
            raise ChatTemplateError(str(error)) from None
        bos = self._tokenizer.bos_id
        if bos is None:
            return ids
        start = 0
        while ids[start : start + 1] == [bos]:
            start += 1
        return [bos, *ids[start:]]

    def _encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> list[int]:
        definitions = [definition(tool) for tool in tools]
        marks = Marks(self._usable_marks, strings_in([definitions, *map(_outside_text, messages)]))
        marked_tools = marks.mark_nested(definitions) or None
        crowded = [message for message in messages if _is_crowded(message)]
        try:
            rendered = self._render(messages, marked_tools, marks)
            lost = any(marks.mark(message.content) not in rendered for message in crowded)
        except ChatTemplateError:
            if not crowded:
                raise
            lost = True
        if lost:
            rendered = self._render(_one_call_a_message(messages), marked_tools, marks)
        return self._encode_outside_marks(rendered, marks)

    def _render(self, messages: Sequence[ChatMessage], tools: Any, marks: Marks) -> str:
        given = [form for message in messages for form in _hugging_face_forms(message, marks)]
        variables = {
            **self._tokenizer.named_tokens,
            "messages": given,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": True,
        }
        parts = len(given) + len(tools or ())
        try:
            return self._template.render(variables, _STEPS + _STEPS_PER_PART * parts)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the model's chat template refuses this conversation: {error}") from None
        except Exception as error:  # the template's own expressions may raise anything
            raise ChatTemplateError(f"the model's chat template fails: {error!r}") from error

    def _encode_outside_marks(self, rendered: str, marks: Marks) -> list[int]:
        ids: list[int] = []
        plain: list[str] = []  # since the last control token
        for content, after in marks.pieces(rendered):
            text, *rest = self._tokenizer.split_special(after)
            plain += (content, text)
            for name, following in zip(rest[::2], rest[1::2], strict=True):
                ids += self._tokenizer.encode("".join(plain))
                ids.append(self._tokenizer.special_tokens[name])
                plain = [following]
        return ids + self._tokenizer.encode("".join(plain))


def _outside_text(message: ChatMessage) -> list[Any]:
    calls = [[call.name, call.id, call.arguments] for call in message.tool_calls]
    results = [[result.content, result.call_id, result.name] for result in message.tool_results]
    return [message.content, calls, results]


def _hugging_face_forms(message: ChatMessage, marks: Marks) -> Iterator[dict[str, Any]]:
    for result in message.tool_results:
        yield {
            "role": "tool",
            "tool_call_id": marks.mark(result.call_id),
            "name": marks.mark(result.name),
            "content": marks.mark(result_text(result)),
        }
    form: dict[str, Any] = {"role": message.role, "content": marks.mark(message.content)}
    if message.tool_calls:
        form["tool_calls"] = [_hugging_face_call(call, marks) for call in message.tool_calls]
    if message.content or not message.tool_results:
        yield form


def _hugging_face_call(call: ToolCall, marks: Marks) -> dict[str, Any]:
    function = {"name": marks.mark(call.name), "arguments": marks.mark_nested(call.arguments)}
    return {"id": marks.mark(call.id), "type": "function", "function": function}


def _is_crowded(message: ChatMessage) -> bool:
    """It has calls, and not just one."""
    return len(message.tool_calls) > 1 or bool(message.tool_calls and message.content.strip())


def _one_call_a_message(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The text beside calls as a message of its own, and each call followed by its result."""
    apart: list[ChatMessage] = []
    taken: set[str] = set()
    for i, message in enumerate(messages):
        if not message.tool_calls:
            results = tuple(result for result in message.tool_results if result.call_id not in taken)
            if results or message.content or not message.tool_results:
                apart.append(replace(message, tool_results=results))
            continue
        if message.content.strip():
            apart.append(ChatMessage(message.role, message.content))
        following = messages[i + 1].tool_results if i + 1 < len(messages) else ()
        by_call = {result.call_id: result for result in following}
        taken = {call.id for call in message.tool_calls} & by_call.keys()
        for call in message.tool_calls:
            apart.append(ChatMessage(message.role, "", (call,)))
            if call.id in by_call:
                apart.append(ChatMessage("user", "", tool_results=(by_call[call.id],)))
    return apart
