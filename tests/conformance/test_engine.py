"""What the API does not let through and an engine may get all the same: it costs one request, no more."""

from __future__ import annotations

import httpx
import pytest

from outcrop.engine.client import GenerationRequest, ModelFailure, SamplingParams

from ..api.server import Server
from . import surface
from .answers import assert_answer
from .service import OPERATIONS, Wire


def test_a_grammar_that_is_none_fails_alone(server: Server, http: httpx.Client) -> None:
    broken = GenerationRequest("broken", [66, 67, 68], SamplingParams(5, grammar="start: ("))

    async def ask() -> None:
        with pytest.raises(ModelFailure):
            async for _ in server.engine.generate(broken):
                pass

    server.call(ask())
    operation = OPERATIONS["Converse"]
    assert_answer("Converse", Wire.of(operation, surface.request(operation)).send(http))
    assert server.engine.restarts == 0
