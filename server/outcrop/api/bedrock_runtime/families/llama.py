"""Meta Llama's native body. See "Meta Llama models" in the Amazon Bedrock user guide."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from outcrop.api import errors
from outcrop.api.bedrock_runtime import llama_on_bedrock
from outcrop.api.bedrock_runtime.families.family import Family, Invocation
from outcrop.api.bedrock_runtime.families.growing_text import GrowingText
from outcrop.api.bedrock_runtime.models import MAX_STOP_SEQUENCES
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.bedrock_runtime.service_tier import priority_of
from outcrop.api.inference import FINISH_REASONS, GenerationCall, Prompt
from outcrop.api.json_schema import Number, ObjectSchema, Rule, Text, Texts
from outcrop.api.sampling import SamplingExtras, extra_members
from outcrop.api.stops import MAX_STOP_CHARACTERS
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


class Llama(Family):
    """The prompt is the model's own, special tokens among it. Beyond Bedrock's own, the body may hold the
    members of `SamplingExtras` and stop_sequences (which clients that know other families send), except in
    strict mode."""

    def parse(self, body: bytes, target: Target, tier: str | None = None) -> Invocation:
        try:
            document = _DOCUMENT.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise errors.malformed_input() from None
        model = target.model
        schema = _STRICT_SCHEMA if target.strict else _schema(model.tokenizer.vocab_size)
        if found := schema.violations(document):
            raise errors.malformed_input(found)
        fields = _DEFAULTS | document
        call = GenerationCall(
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
        return Invocation(call, _Generation(), call.prepare)


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


class _Generation(GrowingText):
    """In a stream the prompt's count is in the first chunk alone, and the generation's is cumulative."""

    def chunk(self, delta: TextDelta, *, is_first: bool) -> dict[str, Any]:
        return {
            "generation": delta.text,
            "prompt_token_count": delta.prompt if is_first else None,
            "generation_token_count": delta.generated,
            "stop_reason": FINISH_REASONS[delta.end] if delta.end else None,
        }

    def whole(self) -> dict[str, Any]:
        return body_of(self.text, self.last)
