"""Amazon Titan Text's native body. See "Amazon Titan Text models" in the Amazon Bedrock user guide."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from outcrop.api import stops
from outcrop.api.bedrock_runtime.families.family import Invocation, ShapedFamily, Stops, Unit
from outcrop.api.bedrock_runtime.families.growing_text import GrowingText
from outcrop.api.bedrock_runtime.families.transcript import of_titan
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.field_error import decode
from outcrop.catalog.model import EndReason, TextDelta

_DEFAULT_MAX_TOKENS, _DEFAULT_TEMPERATURE, _DEFAULT_TOP_P = 512, 0.7, 0.9
_REASONS = {
    EndReason.END_TURN: "FINISHED",
    EndReason.STOP_SEQUENCE: "STOP_CRITERIA_MET",
    EndReason.MAX_TOKENS: "LENGTH",
    EndReason.CONTEXT: "LENGTH",
    EndReason.GUARDRAIL: "CONTENT_FILTERED",
}


class _Config(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    max_token_count: Annotated[int, Meta(ge=1, le=8192)] | None = None
    temperature: Unit | None = None
    top_p: Unit | None = None
    stop_sequences: Stops | None = None


class _Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    input_text: Annotated[str, Meta(min_length=1)]
    text_generation_config: _Config | None = None


_DECODER = msgspec.json.Decoder(_Body)


class Titan(ShapedFamily):
    """A prompt of `User:` and `Bot:` lines is a conversation, any other is one message."""

    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        request = decode(body, _DECODER)
        config = request.text_generation_config or _Config()
        transcript = of_titan(request.input_text)
        chat = transcript.chat(target.model)
        call = chat.call(
            prompt_bytes=transcript.least_bytes,
            temperature=_DEFAULT_TEMPERATURE if config.temperature is None else config.temperature,
            top_p=_DEFAULT_TOP_P if config.top_p is None else config.top_p,
            max_tokens=config.max_token_count,
            default_max_tokens=_DEFAULT_MAX_TOKENS,
            stop=stops.checked("textGenerationConfig.stopSequences", config.stop_sequences),
            priority=priority,
        )
        return Invocation(call, _Answer(), chat.prepare_unbounded)


class _Answer(GrowingText):
    def chunk(self, delta: TextDelta, *, is_first: bool) -> dict[str, Any]:
        return {
            "outputText": delta.text,
            "index": 0,
            "totalOutputTextTokenCount": delta.generated if delta.end else None,
            "completionReason": _REASONS[delta.end] if delta.end else None,
            "inputTextTokenCount": delta.prompt if is_first else None,
        }

    def whole(self) -> dict[str, Any]:
        assert self.last.end is not None
        result = {
            "tokenCount": self.last.generated,
            "outputText": self.text,
            "completionReason": _REASONS[self.last.end],
        }
        return {"inputTextTokenCount": self.last.prompt, "results": [result]}
