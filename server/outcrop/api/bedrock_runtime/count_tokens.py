"""CountTokens: the prompt that Converse or InvokeModel would give the model, counted and not answered."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from outcrop.api.bedrock_runtime.families import family_of
from outcrop.api.bedrock_runtime.models import CountTokensRequest
from outcrop.api.bedrock_runtime.prompt_source import PromptSource, Target
from outcrop.api.decode import decode
from outcrop.api.inference import Prompt
from outcrop.api.shapes import check
from outcrop.api.smithy import Constraints

_REQUEST = msgspec.json.Decoder(CountTokensRequest)
_IDENTIFIER = re.compile(r"[a-zA-Z_\.\-/0-9:]+")
_MAX_IDENTIFIER = 256


def check_identifier(identifier: str) -> None:
    """CountTokens takes fewer identifiers than the other operations. Raises ValidationException."""
    constraints = Constraints()
    constraints.size("modelId", identifier, 1, _MAX_IDENTIFIER)
    if identifier:
        constraints.matches("modelId", identifier, _IDENTIFIER)
    constraints.raise_if_violated()


def parse(body: bytes, target: Target) -> Callable[[], Prompt]:
    """How to make the prompt to be counted: slow, for a thread. Raises SerializationException or
    ValidationException."""
    request = decode(body, _REQUEST)
    constraints = Constraints()
    check(request, constraints)
    constraints.raise_if_violated()
    assert request.input is not None
    if request.input.converse is not None:
        return PromptSource.of(request.input.converse, target).chat.prepare_unbounded
    assert request.input.invoke_model is not None
    return family_of(target.identifier).parse(request.input.invoke_model.body or b"", target).count
