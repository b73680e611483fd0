"""Converse and ConverseStream: their requests as generation calls, and answers in their shapes."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from outcrop.api import errors, eventstream
from outcrop.api.bedrock_runtime import llama
from outcrop.api.bedrock_runtime.models import (
    ContentBlock,
    ConverseRequest,
    InferenceConfiguration,
    SystemContentBlock,
    is_given,
)
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.bedrock_runtime.validate import validate
from outcrop.api.decode import decode
from outcrop.api.inference import MAX_SEED, GenerationCall
from outcrop.api.json_schema import Number, ObjectSchema
from outcrop.catalog.model import EndReason, ServedModel, TextDelta
from outcrop.text.chat_template import ChatMessage

DEFAULT_TEMPERATURE = 0.5
DEFAULT_TOP_P = 0.9

_REQUEST = msgspec.json.Decoder(ConverseRequest)
_DOCUMENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_ADDITIONAL_FIELDS = ObjectSchema(
    {"top_k": Number(0, MAX_SEED, integer=True), "seed": Number(0, MAX_SEED, integer=True)}
)

_STOP_REASONS = {
    EndReason.END_TURN: "end_turn",
    EndReason.STOP_SEQUENCE: "stop_sequence",
    EndReason.MAX_TOKENS: "max_tokens",
    EndReason.CONTEXT: "model_context_window_exceeded",
}

_MESSAGE_START = eventstream.event("messageStart").encode(b'{"role":"assistant"}')
_BLOCK_DELTA = eventstream.event("contentBlockDelta")
_BLOCK_STOP = eventstream.event("contentBlockStop").encode(b'{"contentBlockIndex":0}')
_MESSAGE_STOP = eventstream.event("messageStop")
_METADATA = eventstream.event("metadata")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One Converse or ConverseStream request to one model."""

    request: ConverseRequest
    call: GenerationCall

    @classmethod
    def parse(cls, body: bytes, model: ServedModel, *, streaming: bool) -> Conversation:
        """Raises SerializationException or ValidationException."""
        request = decode(body, _REQUEST)
        validate(request, streaming=streaming)
        config = request.inference_config or InferenceConfiguration()
        additional = _additional_fields(request)
        messages = _chat_messages(request)
        call = GenerationCall(
            model,
            encode=functools.partial(model.chat_template.encode, messages),
            prompt_bytes=sum(len(message.content.strip().encode()) for message in messages),
            temperature=DEFAULT_TEMPERATURE if config.temperature is None else config.temperature,
            top_p=DEFAULT_TOP_P if config.top_p is None else config.top_p,
            max_tokens=config.max_tokens,
            top_k=additional.get("top_k", 0),
            seed=additional.get("seed"),
            stop=tuple(config.stop_sequences or ()),
        )
        return cls(request, call)

    async def answer(self, deltas: AsyncGenerator[TextDelta, None], watch: Stopwatch) -> dict[str, object]:
        """The whole answer as a ConverseResponse. An answer without text is one empty text block."""
        text = []
        async with aclosing(deltas):
            async for delta in deltas:
                text.append(delta.text)
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": "".join(text)}]}},
            **self._stop(delta),
            **self._metadata(delta, watch),
        }

    async def frames(
        self, deltas: AsyncGenerator[TextDelta, None], watch: Stopwatch
    ) -> AsyncGenerator[bytes, None]:
        """The answer as ConverseStream events, as its tokens come."""
        frames = _MESSAGE_START
        spoke = False
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.text or (delta.end is not None and not spoke):
                    body = {"contentBlockIndex": 0, "delta": {"text": delta.text}}
                    frames += _BLOCK_DELTA.encode(msgspec.json.encode(body))
                    spoke = True
                if delta.end is not None:
                    frames += _BLOCK_STOP
                    frames += _MESSAGE_STOP.encode(msgspec.json.encode(self._stop(delta)))
                    frames += _METADATA.encode(msgspec.json.encode(self._metadata(delta, watch)))
                if frames:
                    yield frames
                    frames = b""

    def _stop(self, last: TextDelta) -> dict[str, object]:
        assert last.end is not None
        stop: dict[str, object] = {"stopReason": _STOP_REASONS[last.end]}
        if paths := self.request.additional_model_response_field_paths:
            native = {
                "/prompt_token_count": last.prompt,
                "/generation_token_count": last.generated,
                "/stop_reason": llama.STOP_REASONS[last.end],
            }
            stop["additionalModelResponseFields"] = {
                pointer[1:]: native[pointer] for pointer in paths if pointer in native
            }
        return stop

    def _metadata(self, last: TextDelta, watch: Stopwatch) -> dict[str, object]:
        metadata: dict[str, object] = {
            "usage": self._usage(last),
            "metrics": {"latencyMs": watch.elapsed_ms()},
        }
        performance, tier = self.request.performance_config, self.request.service_tier
        if performance is not None and performance.latency is not None:
            metadata["performanceConfig"] = {"latency": performance.latency}
        if tier is not None:
            metadata["serviceTier"] = {"type": tier.type}
        return metadata

    def _usage(self, last: TextDelta) -> dict[str, int]:
        """Tokens read from the prefix cache are told apart only for requests that mark cache points."""
        usage = {
            "inputTokens": last.prompt,
            "outputTokens": last.generated,
            "totalTokens": last.prompt + last.generated,
        }
        if _marks_cache_points(self.request):
            usage["inputTokens"] -= last.cached
            usage["cacheReadInputTokens"] = last.cached
            usage["cacheWriteInputTokens"] = 0
        return usage


def _additional_fields(request: ConverseRequest) -> dict[str, int]:
    raw = request.additional_model_request_fields
    if not is_given(raw):
        return {}
    fields = decode(bytes(raw), _DOCUMENT)
    if found := _ADDITIONAL_FIELDS.violations(fields):
        raise errors.malformed_input(found, source=errors.MODEL_RETURNED)
    return dict(fields)


def _chat_messages(request: ConverseRequest) -> list[ChatMessage]:
    messages = [
        ChatMessage(str(message.role), _text(message.content or [])) for message in request.messages or []
    ]
    system = _text(request.system or [])
    return [ChatMessage("system", system), *messages] if system else messages


def _text(blocks: list[ContentBlock] | list[SystemContentBlock]) -> str:
    """The text blocks of one turn, a line break between them: the prompt format knows one text a turn."""
    return "\n".join(block.text for block in blocks if block.text is not None)


def _marks_cache_points(request: ConverseRequest) -> bool:
    in_system = any(block.cache_point is not None for block in request.system or [])
    return in_system or any(
        block.cache_point is not None for turn in request.messages or [] for block in turn.content or []
    )
