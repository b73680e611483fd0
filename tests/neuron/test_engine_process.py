"""The Neuron backend in a real engine process, on a stand-in for the Neuron SDK that fails as the chip may:
what the client sees, and what is started again."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from fake_neuron import CpuDevice, FakeRuntime, Fault, read_shard

from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.backends.neuron.nrt import STATUSES, Effect
from outcrop.engine.client import EngineUnavailable, FinishReason, ModelFailure
from outcrop.engine.config import EngineConfig
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop.engine.process_client import ProcessClient
from outcrop_compile.artifact import open_artifact

pytestmark = pytest.mark.usefixtures("sdk")

REQUEST = GenerationRequest("it", [5, 9, 3], SamplingParams(16, temperature=0.8, seed=4))
OTHER = GenerationRequest("other", [7, 7, 2, 1], SamplingParams(16))


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what goes wrong: in the first process that loads, in the second, and so on."""
    path = tmp_path / "faults.json"
    monkeypatch.setenv("FAKE_NEURON_FAULTS", str(path))

    def write(*processes: list[Fault]) -> None:
        path.write_text(json.dumps([[asdict(fault) for fault in each] for each in processes]))

    write()
    return write


@pytest.fixture(scope="module")
def undisturbed(artifact: Path) -> dict[str, list[int]]:
    opened = open_artifact(artifact)
    device = CpuDevice(opened.manifest, [read_shard(path) for path in opened.weights()])
    core = EngineCore(NeuronBackend(FakeRuntime(device), opened.manifest, depth=1), Interleave())
    tokens: dict[str, list[int]] = {"it": [], "other": []}
    for request in (REQUEST, OTHER):
        core.add(request)
    while not core.idle:
        for delta in core.step():
            tokens[delta.request_id] += delta.tokens
    device.close()
    return tokens


@asynccontextmanager
async def engine(artifact: Path) -> AsyncIterator[ProcessClient]:
    client = ProcessClient(EngineConfig(model="", backend="neuron", artifact=str(artifact)))
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def collect(client: ProcessClient, wanted: GenerationRequest) -> list[int]:
    tokens = []
    async for delta in client.generate(wanted):
        tokens += delta.tokens
        assert delta.finish in (None, FinishReason.LENGTH)
    return tokens


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(250):
            await scenario()

    asyncio.run(bounded())


EVERY = [
    pytest.param(code, marks=() if code in (1002, 1003, 1004, 1100, 1201) else pytest.mark.slow)
    for code in sorted(STATUSES)
]


@pytest.mark.parametrize("code", EVERY)
def test_what_a_client_sees_of_each_code(
    artifact: Path, faults: Callable[..., None], undisturbed: dict[str, list[int]], code: int
) -> None:
    effect = STATUSES[code].effect
    early = effect in (Effect.RETRY, Effect.FAIL_STEP)
    faults([Fault(code, at=5, when="execute" if early else "wait", lost=effect is Effect.FAIL_ROWS)])

    async def scenario() -> None:
        async with engine(artifact) as client:
            if effect is Effect.RETRY:
                assert await collect(client, REQUEST) == undisturbed["it"]
            elif effect in (Effect.FAIL_ROWS, Effect.FAIL_STEP):
                with pytest.raises(ModelFailure, match="not numbers, or its step could not be run"):
                    await collect(client, REQUEST)
            elif effect is Effect.RESTART:
                answers = await asyncio.gather(collect(client, REQUEST), collect(client, OTHER))
                assert answers == [undisturbed["it"], undisturbed["other"]]
            else:
                with pytest.raises(EngineUnavailable, match=rf"NRT_{STATUSES[code].name} \({code}\)"):
                    await collect(client, REQUEST)
                assert not client.ready
                assert str(code) in client.drained
                with pytest.raises(EngineUnavailable, match=str(code)):
                    client.generate(OTHER)
                assert client.restarts == 0
                return
            assert client.restarts == (1 if effect is Effect.RESTART else 0)
            assert client.drained == ""
            assert await collect(client, OTHER) == undisturbed["other"]

    run(scenario)


def test_a_request_that_is_in_two_crashes_without_progress_is_refused(
    artifact: Path, faults: Callable[..., None], undisturbed: dict[str, list[int]]
) -> None:
    faults([Fault(1004, at=1)], [Fault(1004, at=1)])

    async def scenario() -> None:
        async with engine(artifact) as client:
            with pytest.raises(ModelFailure, match="failed twice"):
                await collect(client, REQUEST)
            assert await collect(client, OTHER) == undisturbed["other"]
            assert client.restarts == 2

    run(scenario)


@pytest.mark.slow
def test_the_third_engine_that_fails_with_a_persistent_code_is_the_last(
    artifact: Path, faults: Callable[..., None]
) -> None:
    faults(*[[Fault(101, at=3)]] * 4)

    async def scenario() -> None:
        async with engine(artifact) as client:
            with pytest.raises(EngineUnavailable, match="EXEC_UNIT_UNRECOVERABLE"):
                await collect(client, REQUEST)
            assert "EXEC_UNIT_UNRECOVERABLE" in client.drained
            assert client.restarts == 2

    run(scenario)


def test_cores_that_are_still_in_use_are_tried_again(
    artifact: Path, faults: Callable[..., None], undisturbed: dict[str, list[int]]
) -> None:
    faults([Fault(1005, at=0)])

    async def scenario() -> None:
        async with engine(artifact) as client:
            assert await collect(client, REQUEST) == undisturbed["it"]
            assert client.restarts == 0

    run(scenario)


def test_cores_that_are_not_there_end_the_start_with_a_reason(
    artifact: Path, faults: Callable[..., None]
) -> None:
    faults(*[[Fault(9, at=0)]] * 3)

    async def scenario() -> None:
        with pytest.raises(EngineUnavailable, match=r"LOAD_NOT_ENOUGH_NC \(9\).*--cores"):
            async with engine(artifact):
                raise AssertionError("it started")

    run(scenario)
