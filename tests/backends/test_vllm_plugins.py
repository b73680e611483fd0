"""vLLM's plug-ins for NeuronCores under Outcrop's engine process, over stand-ins for their packages: answers
are those of the same model on Outcrop's own engine, whatever happens to the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_engines import until
from msgspec.structs import replace
from reference import answer, capabilities

from outcrop.engine.abilities import ABILITIES, EngineKind
from outcrop.engine.client import (
    EngineUnavailable,
    FinishReason,
    GenerationRequest,
    ModelFailure,
    SamplingParams,
)
from outcrop.engine.config import EngineConfig
from outcrop.engine.process_client import ProcessClient

from ..optimum_neuron.test_exported import CONFIG as EXPORTED

PACKAGES = Path(__file__).parents[1] / "vllm_packages"
LENGTH, ROWS, BLOCK = 512, 4, 16
CAPS = capabilities(vocab_size=1000, max_model_len=LENGTH)
POISON = 5000
EOS = tuple(range(20))


@dataclass(frozen=True)
class Plugin:
    """kind: as the table of abilities has it. versions: of the distributions that are installed. entry: its
    entry point. compiled: whether it serves what its exporter made, whose sizes are the engine's."""

    kind: EngineKind
    versions: dict[str, str]
    entry: str
    compiled: bool = False


PLUGINS = [
    Plugin("vllm-neuron", {"vllm": "0.13.0", "vllm_neuron": "0.4.1"}, "vllm_neuron:register"),
    Plugin(
        "optimum-neuron",
        {"vllm": "0.11.0", "optimum_neuron": "0.4.5"},
        "optimum.neuron.vllm.plugin:register",
        compiled=True,
    ),
]


@pytest.fixture(scope="module", params=PLUGINS, ids=lambda plugin: plugin.kind)
def plugin(request: pytest.FixtureRequest) -> Plugin:
    found: Plugin = request.param
    return found


@pytest.fixture(scope="module")
def config(plugin: Plugin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineConfig]:
    """Of an engine in an environment that has the plug-in and its vLLM."""
    site, model = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("model")
    for name, version in plugin.versions.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if name != "vllm":
            (info / "entry_points.txt").write_text(f"[vllm.platform_plugins]\nneuron = {plugin.entry}\n")
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 1 << 17}))
    if plugin.compiled:
        sizes = {"batch_size": ROWS, "sequence_length": LENGTH}
        (model / "neuron_config.json").write_text(json.dumps(EXPORTED | sizes))
    folders = [site, PACKAGES / "vllm", PACKAGES / plugin.kind]
    kept = os.environ.get("PYTHONPATH")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), *filter(None, [kept])]))
        patch.setenv("VLLM_STAND_IN_POISON", str(POISON))
        sized = EngineConfig(str(model), "vllm", kv_memory=0, max_rows=ROWS, block_size=BLOCK)
        yield sized if plugin.compiled else replace(sized, max_model_len=LENGTH)


Scenario = Callable[[ProcessClient], Awaitable[None]]


@pytest.fixture(scope="module")
def run(config: EngineConfig) -> Iterator[Callable[[Scenario], None]]:
    """Runs a scenario on the one engine of this module."""
    with asyncio.Runner() as runner:
        client = ProcessClient(config)

        async def bounded(scenario: Scenario) -> None:
            async with asyncio.timeout(120):
                await client.start()
                await scenario(client)

        yield lambda scenario: runner.run(bounded(scenario))
        runner.run(client.close())


def asked(name: str, tokens: int = 60, **sampling: Any) -> GenerationRequest:
    return GenerationRequest(name, [len(name), 3, *name.encode()], SamplingParams(tokens, **sampling))


@dataclass
class Told:
    tokens: list[int]
    finish: FinishReason | None
    cached: int = 0


async def collect(
    client: ProcessClient, wanted: GenerationRequest, begun: Callable[[], object] | None = None
) -> Told:
    """begun: called when five tokens are here."""
    told = Told([], None)
    async for delta in client.generate(wanted):
        told.tokens += delta.tokens
        told.finish, told.cached = delta.finish, delta.cached
        if begun is not None and len(told.tokens) >= 5:
            begun()
            begun = None
    return told


def right(told: Told, wanted: GenerationRequest) -> bool:
    return (told.tokens, told.finish) == answer(wanted, CAPS)


Run = Callable[[Scenario], None]


def test_what_it_can_do_is_what_the_table_says(plugin: Plugin, run: Run) -> None:
    async def scenario(client: ProcessClient) -> None:
        assert client.abilities == replace(ABILITIES[plugin.kind], speculation=False)  # nobody asked for it
        assert client.max_model_len == LENGTH

    run(scenario)


def test_answers_beside_one_another(run: Run) -> None:
    """More than run at once, of every end that there is, and with priorities."""
    requests = [
        *(asked(f"r{number}") for number in range(8)),
        *(asked(f"end {number}", 400, eos_ids=EOS) for number in range(3)),
        asked("until the context is full", 5000),
        replace(asked("first"), priority=10),
    ]

    async def scenario(client: ProcessClient) -> None:
        told = await asyncio.gather(*(collect(client, each) for each in requests))
        wrong = [each.request_id for each, got in zip(requests, told, strict=True) if not right(got, each)]
        assert wrong == []
        assert {got.finish for got in told} == {FinishReason.EOS, FinishReason.LENGTH, FinishReason.CONTEXT}

    run(scenario)


def test_sampled_answers_come(run: Run) -> None:
    """Which they are is the device's own choice: it has no seeds."""

    async def scenario(client: ProcessClient) -> None:
        sampled = asked("sampled", 30, temperature=0.8, top_p=0.0, top_k=40, seed=7)
        told = await collect(client, sampled)
        assert (len(told.tokens), told.finish) == (30, FinishReason.LENGTH)

    run(scenario)


def test_the_prefix_cache_is_told_where_there_is_one(plugin: Plugin, run: Run) -> None:
    wanted = asked("a prompt of more than one block of the cache")

    async def scenario(client: ProcessClient) -> None:
        cached = [(await collect(client, wanted)).cached for _ in range(2)]
        whole = (len(wanted.prompt) - 1) // BLOCK * BLOCK
        assert cached == [0, whole if ABILITIES[plugin.kind].prefix_cache else 0]
        salted = await collect(client, replace(wanted, cache_salt="another tenant"))
        assert salted.cached == 0

    run(scenario)


def test_streams_survive_two_kills_and_repeat_no_token(run: Run) -> None:
    async def scenario(client: ProcessClient) -> None:
        for kill in range(2):
            before = client.restarts
            wanted = [asked(f"kill {kill} {number}", 150) for number in range(3)]

            def killed() -> None:
                assert client.pid is not None
                os.kill(client.pid, signal.SIGKILL)

            told = await asyncio.gather(
                collect(client, wanted[0], killed), *(collect(client, each) for each in wanted[1:])
            )
            assert all(map(right, told, wanted))
            assert client.restarts == before + 1

    run(scenario)


def test_an_engine_that_dies_of_a_request_twice_is_not_given_it_again(run: Run) -> None:
    async def scenario(client: ProcessClient) -> None:
        before, good = client.restarts, asked("good", 250)
        task = asyncio.create_task(collect(client, good))
        with pytest.raises(ModelFailure, match="failed twice"):
            await collect(client, GenerationRequest("poison", [5, POISON], SamplingParams(5)))
        assert client.restarts == before + 2
        assert right(await task, good)

    run(scenario)


def test_what_it_refuses_fails_alone(run: Run) -> None:
    async def scenario(client: ProcessClient) -> None:
        before = client.restarts
        with pytest.raises(ModelFailure):
            await collect(client, GenerationRequest("unknown token", [5, POISON + 1], SamplingParams(5)))
        wanted = asked("after it")
        assert right(await collect(client, wanted), wanted)
        assert client.restarts == before

    run(scenario)


def test_an_abandoned_request_is_aborted(run: Run) -> None:
    async def scenario(client: ProcessClient) -> None:
        stream = client.generate(asked("gone", 490))
        async for delta in stream:
            if delta.generated >= 5:
                break
        await stream.aclose()
        await until(lambda: client.stats.generation_tokens > 0 and not client.stats.running)
        assert client.stats.kv_blocks_used == 0

    run(scenario)


def mistaken(config: EngineConfig) -> str:
    """Why an engine of it does not start."""

    async def start() -> str:
        client = ProcessClient(config)
        try:
            with pytest.raises(EngineUnavailable) as raised:
                await client.start()
            return str(raised.value)
        finally:
            await client.close()

    return asyncio.run(start())


def test_sizes_that_cannot_be_are_refused_with_what_to_give(plugin: Plugin, config: EngineConfig) -> None:
    if plugin.compiled:
        assert "max_rows" in mistaken(replace(config, max_rows=ROWS + 1))
    else:
        assert "max_model_len and max_rows" in mistaken(replace(config, max_rows=0))
    unknown = mistaken(replace(config, engine_args={"tensor_paralel_size": 8}))
    assert "engine_args: vLLM does not take them" in unknown
    assert "tensor_paralel_size" in unknown
