"""InvokeModel's native bodies, one model family a file.

Each is translated to the served model and back, so that an application keeps the model id and the body it
was written with."""

from __future__ import annotations

from outcrop.api.bedrock_runtime.families.claude import Claude
from outcrop.api.bedrock_runtime.families.cohere import Cohere
from outcrop.api.bedrock_runtime.families.family import Family, Invocation
from outcrop.api.bedrock_runtime.families.gpt_oss import GptOss
from outcrop.api.bedrock_runtime.families.jamba import Jamba
from outcrop.api.bedrock_runtime.families.jurassic import Jurassic
from outcrop.api.bedrock_runtime.families.llama import Llama
from outcrop.api.bedrock_runtime.families.mistral import Mistral
from outcrop.api.bedrock_runtime.families.titan import Titan
from outcrop.catalog import identifiers

__all__ = ["Family", "Invocation", "family_of"]

_BY_PREFIX: tuple[tuple[str, Family], ...] = (
    ("anthropic.", Claude()),
    ("amazon.titan-text", Titan()),
    ("cohere.command-r", Cohere()),
    ("ai21.j2", Jurassic()),
    ("ai21.jamba", Jamba()),
    ("mistral.", Mistral()),
    ("openai.", GptOss()),
)
_LLAMA = Llama()


def family_of(identifier: str) -> Family:
    """The family whose bodies go with a model id: by the id as the client gave it, whatever model answers to
    it. An id of none of these families takes Llama's."""
    name = identifiers.without_geography(identifiers.resource_name(identifier))
    return next((family for prefix, family in _BY_PREFIX if name.startswith(prefix)), _LLAMA)
