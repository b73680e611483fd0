"""Conversations to prompts: the checkpoint's own chat template, or Llama 3's built-in format."""

from __future__ import annotations

from pathlib import Path

from outcrop.text.base import Tokenizer
from outcrop.text.chat_base import ChatMessage, ChatTemplate, ChatTemplateError, NoChatTemplate
from outcrop.text.jinja_chat_template import JinjaChatTemplate
from outcrop.text.llama3_chat_template import Llama3ChatTemplate

__all__ = [
    "ChatMessage",
    "ChatTemplate",
    "ChatTemplateError",
    "JinjaChatTemplate",
    "Llama3ChatTemplate",
    "NoChatTemplate",
    "load_chat_template",
]


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
