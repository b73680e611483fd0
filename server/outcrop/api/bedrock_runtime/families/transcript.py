"""Prompts of one text: the conversation that some families write into it, taken apart again.

Such a prompt is worded for a model that was trained on its marks. Llama is given the turns in the marks of
its own chat template instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.api.chat import Chat, text_bytes
from outcrop.catalog.model import ServedModel
from outcrop.text.chat_template import ChatMessage

_TITAN = re.compile(r"(?:\A|\n)[ \t]*(?P<role>User|Bot):[ \t]*")
_TITAN_END = re.compile(r"(?:\A|\n)[ \t]*Bot:\s*\Z")
_OPEN, _CLOSE = "[INST]", "[/INST]"


@dataclass(frozen=True, slots=True)
class Transcript:
    """The turns of a prompt. prefill: how its last answer begins already, if it does."""

    messages: Sequence[ChatMessage]
    prefill: str = ""

    def chat(self, model: ServedModel) -> Chat:
        return Chat(model, lambda: self.messages, prefill=self.prefill)

    @property
    def least_bytes(self) -> int:
        return text_bytes(self.messages) + len(self.prefill.encode())


def plain(prompt: str) -> Transcript:
    """A prompt that is one message of the user."""
    return Transcript([ChatMessage("user", prompt)])


def of_titan(prompt: str) -> Transcript:
    """`User: ...` and `Bot: ...` in turn, up to a last `Bot:`; what stands before the first is the system
    prompt. Any other prompt is one message. (AWS's page on Titan Text's inference parameters.)"""
    if not _TITAN_END.search(prompt):
        return plain(prompt)
    head, *pieces = _TITAN.split(prompt)
    system = [ChatMessage("system", head.strip())] if head.strip() else []
    names = {"User": "user", "Bot": "assistant"}
    turns = [
        ChatMessage(names[role], text.strip())
        for role, text in zip(pieces[:-2:2], pieces[1:-2:2], strict=True)
    ]
    if not turns or turns[0].role != "user":
        return plain(prompt)
    return Transcript([*system, *turns])


def of_mistral(prompt: str) -> Transcript:
    """`<s>[INST] ... [/INST] ...</s>`, repeated; an answer that has begun after the last mark goes on. Any
    other prompt is one message. (AWS's page on Mistral AI's text completion.)"""
    text = prompt.strip().removeprefix("<s>").strip()
    if not text.startswith(_OPEN):
        return plain(prompt)
    turns: list[ChatMessage] = []
    at = 0
    while at < len(text):
        close = text.find(_CLOSE, at)
        if close < 0:
            return plain(prompt)
        following = text.find(_OPEN, close)
        end = len(text) if following < 0 else following
        user, assistant = text[at + len(_OPEN) : close], text[close + len(_CLOSE) : end]
        turns.append(ChatMessage("user", user.strip()))
        turns.append(ChatMessage("assistant", assistant.strip().removesuffix("</s>").strip()))
        at = end
    return Transcript(turns[:-1], prefill=turns[-1].content)
