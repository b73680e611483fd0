"""Meta Llama's native body for InvokeModel and InvokeModelWithResponseStream."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from outcrop.api import errors, eventstream
from outcrop.api.bedrock_runtime import llama_on_bedrock
from outcrop.api.bedrock_runtime.models import MAX_STOP_SEQUENCES
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.bedrock_runtime.rules import MAX_STOP_CHARACTERS
from outcrop.api.bedrock_runtime.service_tier import priority_of
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.inference import FINISH_REASONS, GenerationCall, Prompt
from outcrop.api.json_schema import Number, ObjectSchema, Rule, Text, Texts
from outcrop.api.sampling import SamplingExtras, extra_members
from outcrop.catalog.model import TextDelta

_DOCUMENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_MEMBERS: Mapping[str, Rule] = {
    "prompt": Text(min_length=1),
    "temperature": Number(0, 1),
    "top_p": Number(0, 1),
    "max_gen_len": Number(1, 2048, integer=True),
}
_STRICT_SCHEMA = ObjectSchema(_MEMBERS, required=("prompt",))
_DEFAULTS = {"temperature": 0.5, "top_p": 0.9}
_DEFAULT_MAX_GEN_LEN = 512

_CHUNK = eventstream.event("chunk")


def parse(body: bytes, target: Target, tier: str | None = None) -> GenerationCall:
    """The call that a native body asks for. Beyond Bedrock's own, the body may hold the members of
    `SamplingExtras` and stop_sequences (which clients that know other families send), except in strict mode.
    tier: the service tier. Raises ValidationException."""
    try:
        document = _DOCUMENT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.malformed_input() from None
    model = target.model
    schema = _STRICT_SCHEMA if target.strict else _schema(model.tokenizer.vocab_size)
    if found := schema.violations(document):
        raise errors.malformed_input(found)
    fields = _DEFAULTS | document
    return GenerationCall(
        model,
        prepare=lambda: Prompt(model.tokenizer.encode_prompt(fields["prompt"])),
        prompt_bytes=len(fields["prompt"].encode()),
        temperature=float(fields["temperature"]),
        top_p=float(fields["top_p"]),
        max_tokens=fields.get("max_gen_len"),
        default_max_tokens=_DEFAULT_MAX_GEN_LEN,
        stop=tuple(document.get("stop_sequences", ())),
        extras=SamplingExtras.of(document),
        priority=priority_of(tier),
        operation="text_completion",
        max_context=llama_on_bedrock.context_of(target.identifier) if target.strict else None,
    )


@cache
def _schema(vocab_size: int) -> ObjectSchema:
    stop = {"stop_sequences": Texts(MAX_STOP_SEQUENCES, MAX_STOP_CHARACTERS)}
    return ObjectSchema({**_MEMBERS, **stop, **extra_members(vocab_size)}, required=("prompt",))


def body_of(text: str, last: TextDelta) -> dict[str, object]:
    """A whole answer as a native body."""
    assert last.end is not None
    return {
        "generation": text,
        "prompt_token_count": last.prompt,
        "generation_token_count": last.generated,
        "stop_reason": FINISH_REASONS[last.end],
    }


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer: its body, and the counts that go into headers."""

    body: dict[str, object]
    last: TextDelta


async def answer(deltas: AsyncGenerator[TextDelta, None]) -> Generation:
    """The whole answer as a native body."""
    text = []
    async with aclosing(deltas):
        async for delta in deltas:
            text.append(delta.text)
    return Generation(body_of("".join(text), delta), delta)


async def frames(deltas: AsyncGenerator[TextDelta, None], watch: Stopwatch) -> AsyncGenerator[bytes, None]:
    """The answer as chunk events, as its tokens come. The prompt's count is in the first chunk alone,
    the generation's is cumulative, and the last chunk carries the invocation's metrics."""
    first_byte_ms: int | None = None
    async with aclosing(deltas):
        async for delta in deltas:
            is_first = first_byte_ms is None
            if first_byte_ms is None:
                first_byte_ms = watch.elapsed_ms()
            if not (is_first or delta.text or delta.end):
                continue
            chunk: dict[str, object] = {
                "generation": delta.text,
                "prompt_token_count": delta.prompt if is_first else None,
                "generation_token_count": delta.generated,
                "stop_reason": FINISH_REASONS[delta.end] if delta.end else None,
            }
            if delta.end is not None:
                chunk["amazon-bedrock-invocationMetrics"] = {
                    "inputTokenCount": delta.prompt,
                    "outputTokenCount": delta.generated,
                    "invocationLatency": watch.elapsed_ms(),
                    "firstByteLatency": first_byte_ms,
                }
            yield _CHUNK.encode(
                msgspec.json.encode({"bytes": base64.b64encode(msgspec.json.encode(chunk)).decode()})
            )
