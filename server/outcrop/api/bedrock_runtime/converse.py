"""Converse and ConverseStream: their requests as generation calls, and answers in their shapes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from outcrop.api import errors, eventstream
from outcrop.api.answer import AnswerEvents, Event
from outcrop.api.bedrock_runtime import guarded_conversation, llama_on_bedrock, service_tier
from outcrop.api.bedrock_runtime.cache_points import cache_points, usage
from outcrop.api.bedrock_runtime.families import llama
from outcrop.api.bedrock_runtime.models import ConverseRequest, InferenceConfiguration
from outcrop.api.bedrock_runtime.prompt_source import PromptSource, Target
from outcrop.api.bedrock_runtime.rules import check_stop_sequences
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.decode import decode
from outcrop.api.guardrails.guard import Guard, GuardOptions
from outcrop.api.inference import GenerationCall, Prompt
from outcrop.api.json_schema import ObjectSchema
from outcrop.api.sampling import NO_EXTRAS, SamplingExtras, extra_members
from outcrop.api.shapes import check
from outcrop.api.smithy import Constraints
from outcrop.catalog.model import TextDelta

DEFAULT_TEMPERATURE = 0.5
DEFAULT_TOP_P = 0.9

_REQUEST = msgspec.json.Decoder(ConverseRequest)
_encode = msgspec.json.Encoder().encode

_MESSAGE_START: Event = ("messageStart", {"role": "assistant"})
_FRAMES = {
    name: eventstream.event(name)
    for name in (
        "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop",
        "metadata",
    )
}  # fmt: skip


def parse(body: bytes) -> ConverseRequest:
    """A body whose shape is right. Raises SerializationException or ValidationException."""
    request = decode(body, _REQUEST)
    constraints = Constraints()
    check(request, constraints)
    constraints.raise_if_violated()
    return request


@dataclass(frozen=True, slots=True)
class Conversation:
    """One Converse or ConverseStream request to one model."""

    request: ConverseRequest
    source: PromptSource
    call: GenerationCall

    @classmethod
    def of(
        cls, request: ConverseRequest, target: Target, *, streaming: bool, guard: Guard | None = None
    ) -> Conversation:
        """From a request whose shape has been checked. guard: the guardrail that it names; a request that
        names one is refused without. Raises ValidationException."""
        if target.strict:
            llama_on_bedrock.refuse_request(target.identifier, request)
        _refuse_unsupported(request, guard)
        config = request.inference_config or InferenceConfiguration()
        check_stop_sequences(config)
        source = PromptSource.of(request, target, streaming=streaming, json_schema=_json_schema(request))
        call = source.chat.call(
            prompt_bytes=source.least_bytes(),
            temperature=DEFAULT_TEMPERATURE if config.temperature is None else config.temperature,
            top_p=DEFAULT_TOP_P if config.top_p is None else config.top_p,
            max_tokens=config.max_tokens,
            extras=_extras(request.additional_model_request_fields, target),
            stop=config.stop_sequences or (),
            priority=service_tier.priority_of(request.service_tier.type if request.service_tier else None),
            max_context=llama_on_bedrock.context_of(target.identifier) if target.strict else None,
        )
        if guard is not None:
            call = replace(call, guard=guard, prepare=lambda: _guarded_prompt(guard, request, source))
        return cls(request, source, call)

    async def answer(self, deltas: AsyncGenerator[TextDelta, None], watch: Stopwatch) -> dict[str, object]:
        """The whole answer as a ConverseResponse."""
        growing = self._growing()
        async with aclosing(deltas):
            async for delta in deltas:
                growing.grow(delta)
        return {
            "output": {"message": {"role": "assistant", "content": growing.content}},
            **self._stop(growing, delta),
            **self._metadata(delta, watch),
        }

    async def frames(
        self, deltas: AsyncGenerator[TextDelta, None], watch: Stopwatch
    ) -> AsyncGenerator[bytes, None]:
        """The answer as ConverseStream events, as its tokens come."""
        growing = self._growing()
        frames = [_frame(_MESSAGE_START)]
        async with aclosing(deltas):
            async for delta in deltas:
                frames += map(_frame, growing.grow(delta))
                if delta.end is not None:
                    frames += map(_frame, self._last_events(growing, delta, watch))
                if frames:
                    yield b"".join(frames)
                    frames.clear()

    def _growing(self) -> AnswerEvents:
        growing = self.source.chat.events()
        growing.guard = self.call.guard
        return growing

    def _last_events(self, growing: AnswerEvents, last: TextDelta, watch: Stopwatch) -> Iterator[Event]:
        """Called when all blocks have ended: only then the reason is known."""
        yield "messageStop", self._stop(growing, last)
        yield "metadata", self._metadata(last, watch)

    def _stop(self, growing: AnswerEvents, last: TextDelta) -> dict[str, Any]:
        assert last.end is not None
        guard = self.call.guard
        reason = growing.stop_reason(last.end)
        if guard is not None and guard.changed_answer:
            reason = "guardrail_intervened"
        stop: dict[str, Any] = {"stopReason": reason}
        if paths := self.request.additional_model_response_field_paths:
            native = llama.body_of(growing.text, last)
            stop["additionalModelResponseFields"] = {
                pointer[1:]: native[pointer[1:]] for pointer in paths if pointer[1:] in native
            }
        return stop

    def _metadata(self, last: TextDelta, watch: Stopwatch) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "usage": usage(cache_points(self.request), last),
            "metrics": {"latencyMs": watch.elapsed_ms()},
        }
        performance, tier = self.request.performance_config, self.request.service_tier
        if performance is not None and performance.latency is not None:
            metadata["performanceConfig"] = {"latency": performance.latency}
        if tier is not None:
            metadata["serviceTier"] = {"type": tier.type}
        if trace := self._trace():
            metadata["trace"] = trace
        return metadata

    def _trace(self) -> dict[str, Any]:
        """What guardrail and prompt router did, as far as there are any."""
        told: dict[str, Any] = {}
        guard, target = self.call.guard, self.source.target
        if guard is not None and (trace := guard.trace()) is not None:
            told["guardrail"] = trace
        if target.routed:
            told["promptRouter"] = {"invokedModelId": target.identifier}
        return told


def _frame(event: Event) -> bytes:
    kind, body = event
    return _FRAMES[kind].encode(_encode(body))


def guard_options(request: ConverseRequest) -> GuardOptions:
    """What a request wants of its guardrail."""
    config = request.guardrail_config
    trace, mode = (config.trace, config.stream_processing_mode) if config else (None, None)
    return GuardOptions(
        trace=trace in ("enabled", "enabled_full"), full=trace == "enabled_full", asynchronous=mode == "async"
    )


def _guarded_prompt(guard: Guard, request: ConverseRequest, source: PromptSource) -> Prompt:
    """The prompt with masks in it. Slow. Raises InputBlocked, and as `Chat.prepare`."""
    guarded_conversation.check(guard, request)
    return source.chat.prepare()


def _refuse_unsupported(request: ConverseRequest, guard: Guard | None) -> None:
    """Raises ValidationException for what would change the answer and is not done here."""
    config = request.guardrail_config
    if guard is None and config is not None and (config.guardrail_identifier or config.guardrail_version):
        raise errors.unsupported_field("guardrailConfig")
    if request.prompt_variables:
        raise errors.unsupported_field("promptVariables")
    if request.output_config is not None and request.output_config.effort:
        raise errors.unsupported_field("outputConfig.effort")


def _json_schema(request: ConverseRequest) -> str | None:
    text_format = request.output_config.text_format if request.output_config else None
    structure = text_format.structure if text_format else None
    return structure.json_schema.schema if structure and structure.json_schema else None


def _extras(fields: Any, target: Target) -> SamplingExtras:
    if fields is None:
        return NO_EXTRAS
    # Llama on Bedrock has no parameters beyond those of inferenceConfig.
    members = {} if target.strict else extra_members(target.model.tokenizer.vocab_size)
    if found := ObjectSchema(members).violations(fields):
        raise errors.malformed_input(found, source=errors.MODEL_RETURNED)
    return SamplingExtras.of(fields)
