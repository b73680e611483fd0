"""AI21 Labs' Jurassic-2 native body. See "AI21 Labs Jurassic-2 models" in the Amazon Bedrock user guide."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from outcrop.api import stops
from outcrop.api.bedrock_runtime.families.family import Invocation, ShapedFamily, Stops, Unit
from outcrop.api.bedrock_runtime.families.growing_text import GrowingText
from outcrop.api.bedrock_runtime.families.transcript import plain
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.field_error import decode, unsupported
from outcrop.catalog.model import EndReason, TextDelta

_DEFAULT_MAX_TOKENS, _DEFAULT_TEMPERATURE, _DEFAULT_TOP_P = 200, 0.5, 0.5
_REASONS = {
    EndReason.END_TURN: "endoftext",
    EndReason.STOP_SEQUENCE: "stop",
    EndReason.MAX_TOKENS: "length",
    EndReason.CONTEXT: "length",
    EndReason.GUARDRAIL: "endoftext",
}


class _Penalty(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    scale: float | None = None
    apply_to_whitespaces: bool | None = None
    apply_to_punctuations: bool | None = None
    apply_to_numbers: bool | None = None
    apply_to_stopwords: bool | None = None
    apply_to_emojis: bool | None = None


class _Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    prompt: Annotated[str, Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=8191)] | None = None
    temperature: Unit | None = None
    top_p: Unit | None = None
    stop_sequences: Stops | None = None
    count_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None


_DECODER = msgspec.json.Decoder(_Body)


class Jurassic(ShapedFamily):
    """The prompt is one message. Jurassic's penalties count the prompt's tokens too and know kinds of tokens,
    which the engine's do not: they are refused unless their scale is 0."""

    streams = False

    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        request = decode(body, _DECODER)
        penalties = {
            "countPenalty": request.count_penalty,
            "presencePenalty": request.presence_penalty,
            "frequencyPenalty": request.frequency_penalty,
        }
        for name, penalty in penalties.items():
            if penalty is not None and penalty.scale:
                raise unsupported(name, "remove it and try again.")
        transcript = plain(request.prompt)
        chat = transcript.chat(target.model)
        call = chat.call(
            prompt_bytes=transcript.least_bytes,
            temperature=_DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
            top_p=_DEFAULT_TOP_P if request.top_p is None else request.top_p,
            max_tokens=request.max_tokens,
            default_max_tokens=_DEFAULT_MAX_TOKENS,
            stop=stops.checked("stopSequences", request.stop_sequences),
            priority=priority,
        )
        return Invocation(call, _Answer(request.prompt), chat.prepare_unbounded)


class _Answer(GrowingText):
    """The lists of tokens are empty: they would hold log probabilities, which are not kept."""

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self._prompt = prompt

    def chunk(self, delta: TextDelta, *, is_first: bool) -> dict[str, Any]:
        """Nothing: there is no stream."""
        return {}

    def whole(self) -> dict[str, Any]:
        assert self.last.end is not None
        reason: dict[str, Any] = {"reason": _REASONS[self.last.end]}
        if self.last.end is EndReason.STOP_SEQUENCE:
            reason["sequence"] = self.last.matched
        elif reason["reason"] == "length":
            reason["length"] = self.last.generated
        return {
            "id": secrets.randbits(31),
            "prompt": {"text": self._prompt, "tokens": []},
            "completions": [{"data": {"text": self.text, "tokens": []}, "finishReason": reason}],
        }
