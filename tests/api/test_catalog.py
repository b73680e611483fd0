"""Which model answers to which name, and how models become text."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest

from outcrop.api.admission import ApiLimits
from outcrop.catalog.catalog import Catalog, UnknownModel
from outcrop.catalog.model import EndReason, TextDelta
from outcrop.engine.client import (
    EngineUnavailable,
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    ModelFailure,
    SamplingParams,
)

from .doubles import Script, ScriptedEngine, served

LLAMA = "meta.llama3-8b-instruct-v1:0"


def test_explicit_names() -> None:
    first = served(ScriptedEngine(), aliases=("meta-llama/Meta-Llama-3-8B", "abc123def456"))
    second = served(ScriptedEngine(), "my.other-v1:0")
    catalog = Catalog([first, second])
    for name in (
        LLAMA,
        f"us.{LLAMA}",
        "meta-llama/Meta-Llama-3-8B",
        f"arn:aws-cn:bedrock:cn-north-1::foundation-model/{LLAMA}",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456",
    ):
        assert catalog.resolve(name) is first
    assert catalog.resolve("global.my.other-v1:0") is second
    for name in ("", "us", "us.abc123def456", LLAMA.upper(), f"{LLAMA}:128k", f"us.us.{LLAMA}"):
        with pytest.raises(UnknownModel):
            catalog.resolve(name)
    assert [listed.model_id for listed in catalog.foundation_models()] == [LLAMA, "my.other-v1:0"]


def test_a_demo_answers_to_every_valid_name() -> None:
    model = served(ScriptedEngine(), "demo")
    catalog = Catalog([model], demo=True)
    for name in ("demo", "anything", LLAMA, f"us.{LLAMA}", "anthropic.claude-3-haiku-20240307-v1:0"):
        assert catalog.resolve(name) is model
    with pytest.raises(UnknownModel):
        catalog.resolve("../x")
    listed = [entry.model_id for entry in catalog.foundation_models()]
    assert LLAMA in listed
    assert "demo" in listed
    assert catalog.foundation_model("anthropic.claude-3-haiku-20240307-v1:0").model_id.startswith("anthropic")
    # A profile is no foundation model: its details are those of the model that it routes to.
    assert catalog.foundation_model(f"us.{LLAMA}") == catalog.foundation_model(LLAMA)


def test_catalogs_that_cannot_be() -> None:
    one, two = served(ScriptedEngine()), served(ScriptedEngine())
    with pytest.raises(ValueError, match="at least one"):
        Catalog([])
    with pytest.raises(ValueError, match="two models are named"):
        Catalog([one, two])
    with pytest.raises(ValueError, match="demo mode"):
        Catalog([one, served(ScriptedEngine(), "b")], demo=True)


@pytest.mark.parametrize("name", ["max_inflight", "max_body_bytes", "body_timeout", "tokenizer_threads"])
def test_limits_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ApiLimits(**{name: 0})  # type: ignore[arg-type]


async def generated(engine: ScriptedEngine, stop: tuple[str, ...]) -> list[TextDelta]:
    await engine.start()
    deltas = served(engine).generate("r", [1, 2, 3], SamplingParams(max_tokens=99), stop)
    try:
        return [delta async for delta in deltas]
    finally:
        assert engine.open == 0


def generate(
    script: Script,
    stop: tuple[str, ...] = (),
    context: int = 512,
    engine: type[ScriptedEngine] = ScriptedEngine,
) -> list[TextDelta]:
    return asyncio.run(generated(engine(script=script, context=context), stop))


def test_deltas_carry_text_and_counts() -> None:
    assert generate(Script(pieces=(b"a", b"bc"), cached=2)) == [
        TextDelta("a", 3, 2, 1, tokens=[97]),
        TextDelta("bc", 3, 2, 3, tokens=[98, 99]),
        TextDelta("", 3, 2, 4, EndReason.END_TURN, tokens=[]),
    ]


def test_what_is_held_back_comes_with_the_end() -> None:
    deltas = generate(Script(pieces=(b"one ST", b"\xc3")), stop=("STOP",))
    assert "".join(delta.text for delta in deltas) == "one ST\ufffd"
    assert deltas[-1].end is EndReason.END_TURN


def test_a_character_that_a_limit_cuts_is_left_out() -> None:
    script = Script(pieces=(b"one \xf0\x9f", b"\x98"), finish=FinishReason.LENGTH)
    deltas = generate(script)
    assert "".join(delta.text for delta in deltas) == "one "
    assert deltas[-1].end is EndReason.MAX_TOKENS


def test_a_stop_sequence_that_the_last_character_completes() -> None:
    deltas = generate(Script(pieces=(b"one\xc3",)), stop=("\ufffd",))
    assert ("".join(delta.text for delta in deltas), deltas[-1].end) == ("one", EndReason.STOP_SEQUENCE)


class AtOnce(ScriptedEngine):
    """Gives everything in one delta, as an engine does that is ahead of its reader."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        deltas = [delta async for delta in super().generate(request)]
        tokens = [token for delta in deltas for token in delta.tokens]
        last = deltas[-1]
        yield GenerationDelta(request.request_id, tokens, last.generated, last.cached, last.finish)


@pytest.mark.parametrize("finish", FinishReason)
def test_what_comes_with_a_stop_sequence_and_after_it_is_not_the_answers(finish: FinishReason) -> None:
    script = Script(pieces=(b"one", b" STOP", b" more"), finish=finish)
    (delta,) = generate(script, stop=("STOP",), engine=AtOnce)
    assert delta == TextDelta(
        "one ", 3, 0, 8, EndReason.STOP_SEQUENCE, tokens=list(b"one STOP"), matched="STOP"
    )


def test_an_end_of_the_turn_is_used_where_no_stop_sequence_comes_before_it() -> None:
    (delta,) = generate(Script(pieces=(b"one ST",)), stop=("STOP",), engine=AtOnce)
    assert delta == TextDelta("one ST", 3, 0, 7, EndReason.END_TURN, tokens=list(b"one ST"))


def test_a_limit_that_is_the_contexts_is_reported_as_that() -> None:
    script = Script(pieces=(b"abcd",), finish=FinishReason.LENGTH)
    assert generate(script, context=8)[-1].end is EndReason.MAX_TOKENS
    assert generate(script, context=7)[-1].end is EndReason.CONTEXT


@pytest.mark.parametrize(
    ("finish", "error"), [(FinishReason.ERROR, ModelFailure), (FinishReason.ABORT, EngineUnavailable)]
)
def test_ends_that_are_no_answer(finish: FinishReason, error: type[Exception]) -> None:
    with pytest.raises(error):
        generate(Script(finish=finish))


def test_the_api_process_imports_no_torch() -> None:
    check = "import sys, outcrop.api.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
