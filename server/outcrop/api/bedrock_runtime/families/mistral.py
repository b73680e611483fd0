"""Mistral AI's native bodies: a prompt, or messages in a form like OpenAI's. See "Mistral AI text completion"
and "Mistral AI chat completion" in the Amazon Bedrock user guide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from outcrop.api import field_error, stops
from outcrop.api.bedrock_runtime.families.chat_body import GrowingCompletion, chat_invocation
from outcrop.api.bedrock_runtime.families.family import Invocation, ShapedFamily, Stops, Unit
from outcrop.api.bedrock_runtime.families.growing_text import GrowingText
from outcrop.api.bedrock_runtime.families.transcript import of_mistral
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.inference import FINISH_REASONS
from outcrop.api.sampling import MAX_SEED, SamplingExtras
from outcrop.catalog.model import TextDelta

_DEFAULT_TEMPERATURE, _DEFAULT_TOP_P = 0.5, 0.9
_DEFAULT_MAX_TOKENS = 512
_CHAT_DEFAULT_MAX_TOKENS = 8192
_CHAT_DEFAULT_TEMPERATURE, _CHAT_DEFAULT_TOP_P = 0.7, 1.0

_MaxTokens = Annotated[int, Meta(ge=1, le=8192)]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    prompt: Annotated[str, Meta(min_length=1)]
    max_tokens: _MaxTokens | None = None
    temperature: Unit | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    stop: Stops | None = None


_DECODER = msgspec.json.Decoder(_Body)


class _Kind(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw()


_KIND = msgspec.json.Decoder(_Kind)


class Mistral(ShapedFamily):
    """A body with `messages` is a chat, any other a prompt in Mistral's instruction format."""

    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        if bytes(field_error.decode(body, _KIND).messages):
            return chat_invocation(
                body,
                target,
                priority,
                _GrowingChat,
                default_temperature=_CHAT_DEFAULT_TEMPERATURE,
                default_top_p=_CHAT_DEFAULT_TOP_P,
                default_max_tokens=_CHAT_DEFAULT_MAX_TOKENS,
            )
        request = field_error.decode(body, _DECODER)
        transcript = of_mistral(request.prompt)
        chat = transcript.chat(target.model)
        call = chat.call(
            prompt_bytes=transcript.least_bytes,
            temperature=_DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
            top_p=_DEFAULT_TOP_P if request.top_p is None else request.top_p,
            max_tokens=request.max_tokens,
            default_max_tokens=_DEFAULT_MAX_TOKENS,
            extras=SamplingExtras(top_k=request.top_k or 0),
            stop=stops.checked("stop", request.stop),
            priority=priority,
        )
        return Invocation(call, _GrowingPrompt(), chat.prepare_unbounded)


class _GrowingPrompt(GrowingText):
    def chunk(self, delta: TextDelta, *, is_first: bool) -> dict[str, Any]:
        reason = FINISH_REASONS[delta.end] if delta.end else None
        return {"outputs": [{"text": delta.text, "stop_reason": reason}]}

    def whole(self) -> dict[str, Any]:
        assert self.last.end is not None
        return {"outputs": [{"text": self.text, "stop_reason": FINISH_REASONS[self.last.end]}]}


class _GrowingChat(GrowingCompletion):
    """As OpenAI's, but a choice has a `stop_reason`, and in a stream a `message`."""

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        return [{**chunk, "choices": [*map(_own, chunk["choices"])]} for chunk in super().push(delta)]

    def whole(self) -> dict[str, Any]:
        completion = super().whole()
        return {**completion, "choices": [*map(_own, completion["choices"])]}


def _own(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice["message"] if "message" in choice else choice["delta"]
    return {"index": choice["index"], "message": message, "stop_reason": choice["finish_reason"]}
