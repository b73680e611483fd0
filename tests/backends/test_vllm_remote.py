"""A vLLM server as an engine, over a stand-in for its HTTP surface."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from outcrop.backends.streaming import EngineLost
from outcrop.backends.vllm.remote import VllmServer
from outcrop.engine.client import FinishReason, GenerationRequest, SamplingParams, TokenLogprobs
from outcrop.engine.config import EngineConfig
from outcrop.engine.process_client import ProcessClient

from ..api.doubles import EOS
from .vllm_stand_in import StandIn, own_engine, stand_in

PROMPT = list(range(65, 85))
GREEDY = SamplingParams(40)
SCHEMA = '{"grammars": [{"json_schema": {"enum": ["a long enough answer to be broken off"]}}]}'


def config(server: StandIn, **changes: Any) -> EngineConfig:
    return EngineConfig("unread", backend="vllm", url=server.url, **changes)


def asked(sampling: SamplingParams = GREEDY, **changes: Any) -> GenerationRequest:
    return GenerationRequest("r", PROMPT, sampling, **changes)


class Told(msgspec.Struct):
    tokens: list[int] = []
    generated: int = 0
    cached: int = 0
    finish: FinishReason | None = None
    logprobs: list[TokenLogprobs] = []


async def collect(pieces: Any) -> Told:
    """Of an engine's pieces, or a client's deltas."""
    told = Told()
    async for piece in pieces:
        told.tokens += piece.tokens
        told.logprobs += piece.logprobs
        told.generated, told.cached, told.finish = piece.generated, piece.cached, piece.finish
    return told


def expected(request: GenerationRequest) -> Told:
    """What Outcrop's own engine says."""

    async def ask() -> Told:
        engine = own_engine()
        await engine.start()
        try:
            return await collect(engine.generate(request))
        finally:
            await engine.close()

    return asyncio.run(ask())


def on(server: StandIn, work: Any, **changes: Any) -> Any:
    """Runs `work` of an engine that has started, and gives what it gives."""

    async def run() -> Any:
        engine = VllmServer(config(server, **changes))
        try:
            ready = await engine.start(lambda stage, fraction: None)
            server.bodies.clear()
            done = work(engine, ready)
            return await done if isinstance(done, Coroutine) else done
        finally:
            await engine.close()

    return asyncio.run(run())


REQUESTS = {
    "greedy": asked(),
    "sampled": asked(SamplingParams(40, temperature=0.9, top_p=0.8, top_k=20, seed=7, min_p=0.01)),
    "an end": asked(SamplingParams(400, temperature=1.0, seed=1, eos_ids=(5, 6, 7, 8, 9, EOS))),
    "edited": asked(SamplingParams(20, presence_penalty=1.0, frequency_penalty=0.5, logit_bias={70: 5.0})),
    "a schema": asked(SamplingParams(90, grammar=SCHEMA, eos_ids=(EOS,))),
    "a Lark grammar": asked(SamplingParams(90, grammar='start: "yes" | "no"', eos_ids=(EOS,))),
    "the context": GenerationRequest("r", [66] * 2000, SamplingParams(5000)),
    "logprobs": asked(SamplingParams(9, logprobs=2)),
}


GRAMMARS = ("a schema", "a Lark grammar")


@pytest.mark.parametrize("name", REQUESTS)
def test_answers(name: str) -> None:
    request = REQUESTS[name]
    with stand_in() as server:
        told = on(server, lambda engine, ready: collect(engine.generate(request)))
    own = expected(request)
    assert (told.tokens, told.finish) == (own.tokens, own.finish)
    # vLLM's model says that an answer is over, also where the grammar allows nothing else.
    assert told.generated == own.generated + (name in GRAMMARS)
    assert [len(each.likeliest) for each in told.logprobs] == [len(each.likeliest) for each in own.logprobs]


def test_what_the_server_is_told() -> None:
    request = asked(SamplingParams(3, eos_ids=(5,)), priority=10, cache_salt="tenant", adapter="tuned")
    with stand_in() as server:
        on(server, lambda engine, ready: collect(engine.generate(request)))
        (body,) = server.bodies
    assert (body["model"], body["prompt"], body["max_tokens"]) == ("tuned", PROMPT, 3)
    assert (body["stop_token_ids"], body["ignore_eos"]) == ([5], True)
    assert (body["priority"], body["cache_salt"]) == (-10, "tenant")


def test_what_a_server_can_do_is_found_out() -> None:
    with stand_in(grammars=False, details=False) as server:
        ready = on(server, lambda engine, ready: ready)
    assert not ready.abilities.grammar
    assert not ready.abilities.prefix_cache
    assert ready.abilities.priority
    with stand_in() as server:
        ready = on(server, lambda engine, ready: ready)
    assert ready.abilities.grammar
    assert ready.abilities.prefix_cache
    assert ready.max_model_len == 2048


def test_the_prefix_cache_is_told() -> None:
    async def twice(engine: VllmServer, ready: object) -> list[int]:
        return [(await collect(engine.generate(asked()))).cached for _ in range(2)]

    with stand_in() as server:
        assert on(server, twice) == [0, 16]


@pytest.mark.parametrize("name", ["greedy", "a schema", "edited"])
def test_a_stream_that_breaks_off_goes_on(name: str) -> None:
    request = REQUESTS[name]
    with stand_in() as server:

        async def broken(engine: VllmServer, ready: object) -> Told:
            server.break_after = 5
            return await collect(engine.generate(request))

        told = on(server, broken)
        assert len(server.bodies) == 2
        resubmitted = server.bodies[1]["prompt"]
    # A grammar begins anew, and penalties with what was said: so the answer is made again.
    said = told.tokens[: len(resubmitted) - len(PROMPT)]
    assert resubmitted == PROMPT + said
    assert len(said) >= 5 if name == "greedy" else not said
    own = expected(request)
    assert (told.tokens, told.finish) == (own.tokens, own.finish)
    assert told.generated == own.generated + (name in GRAMMARS)


@pytest.mark.parametrize(
    ("name", "finish"), [("greedy", FinishReason.ERROR), ("a schema", FinishReason.GRAMMAR)]
)
def test_a_request_that_is_refused_in_its_stream_fails_alone(name: str, finish: FinishReason) -> None:
    with stand_in() as server:

        async def refused(engine: VllmServer, ready: object) -> tuple[Told, Told]:
            server.error = {"message": "Grammar error", "type": "BadRequestError", "param": None, "code": 400}
            failed = await collect(engine.generate(REQUESTS[name]))
            server.error = None
            return failed, await collect(engine.generate(REQUESTS[name]))

        failed, told = on(server, refused)
    assert (failed.tokens, failed.finish) == ([], finish)
    assert told.tokens


def test_a_server_that_fails_in_a_stream_loses_the_engine() -> None:
    with stand_in() as server:

        async def failing(engine: VllmServer, ready: object) -> None:
            server.error = {"message": "EngineCore died", "type": "InternalServerError", "code": 500}
            with pytest.raises(EngineLost, match="EngineCore died"):
                await collect(engine.generate(asked()))

        on(server, failing)


def test_a_server_that_goes_loses_the_engine() -> None:
    with stand_in() as server:

        async def broken(engine: VllmServer, ready: object) -> None:
            pieces = engine.generate(asked(SamplingParams(1900)))
            await anext(pieces)
            await asyncio.to_thread(server.stop)
            with pytest.raises(EngineLost, match="broke off"):
                await collect(pieces)
            with pytest.raises(EngineLost, match="is gone"):
                await engine.look()

        try:
            on(server, broken)
        finally:
            server.stop = lambda: None  # type: ignore[method-assign]


def test_the_server_s_figures() -> None:
    async def look(engine: VllmServer, ready: object) -> Any:
        await collect(engine.generate(asked()))
        return await engine.look()

    with stand_in() as server:
        stats = on(server, look)
    assert (stats.running, stats.kv_blocks_used, stats.kv_blocks_total) == (0, 128, 512)
    assert stats.prompt_tokens >= len(PROMPT)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"served_name": "other"}, {}, "does not serve 'other', but fake"),
        ({"adapters": {"tuned": ""}}, {}, "does not serve 'tuned'"),
        ({}, {"key": "secret"}, "asks for a key"),
    ],
)
def test_mistakes(changes: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with stand_in(**options) as server, pytest.raises(ValueError, match=words):
        on(server, lambda engine, ready: None, **changes)


def test_the_key_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_KEY", "secret")
    with stand_in(key="secret") as server:
        assert on(server, lambda engine, ready: ready.max_model_len, api_key_env="VLLM_KEY") == 2048


def test_a_supervised_engine_survives_its_server() -> None:
    """The server ends in the middle of a stream and another starts at its place: the stream goes on."""
    wanted = expected(asked(SamplingParams(1500)))

    async def run() -> Told:
        with ExitStack() as servers:
            first = servers.enter_context(stand_in())
            client = ProcessClient(config(first))
            try:
                await client.start()
                told, stopped = Told(), False
                async for delta in client.generate(asked(SamplingParams(1500))):
                    told.tokens += delta.tokens
                    told.finish = delta.finish
                    if not stopped:
                        stopped = True
                        await asyncio.to_thread(first.stop)
                        while not client.restarts:  # else it may find the next one in time, and lose nothing
                            await asyncio.sleep(0.01)
                        servers.enter_context(stand_in(port=first.port))
                assert client.restarts == 1
                return told
            finally:
                await client.close()

    told = asyncio.run(run())
    assert (told.tokens, told.finish) == (wanted.tokens, wanted.finish)
