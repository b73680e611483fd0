"""What the API makes of a model with several replicas."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
from demo import PATH

from outcrop.api.admission import Admission
from outcrop.api.errors import ApiError
from outcrop.catalog.catalog import Catalog
from outcrop.engine.client import EngineClient, EngineStats, Routing
from outcrop.engine.config import EngineConfig
from outcrop.engine.replicas import ReplicaSet
from outcrop.rollover import Rollover
from outcrop.settings import ModelSettings, Settings
from outcrop.telemetry.metrics import Metrics

from .doubles import ScriptedEngine, served
from .server import Server


class Pair(ScriptedEngine):
    """Stands for a set; `parts` are its replicas."""

    def __init__(self, *parts: ScriptedEngine) -> None:
        super().__init__()
        self.parts = parts

    @property
    def ready(self) -> bool:
        return any(each.ready for each in self.parts)

    @property
    def replicas(self) -> tuple[EngineClient, ...]:
        return self.parts

    @property
    def routing(self) -> Routing:
        return Routing(prefix=5, session=1, load=3, moved=2)


def test_one_ready_replica_is_enough_and_the_others_are_told_of() -> None:
    async def scenario() -> None:
        first, second = ScriptedEngine(), ScriptedEngine()
        catalog = Catalog([served(Pair(first, second), "m")])
        assert (catalog.ready, catalog.states(), catalog.most_replicas) == (False, {"m": "not ready"}, 1)
        await first.start()
        assert (catalog.ready, catalog.states()) == (True, {"m": "ready: 1 of 2 replicas"})
        assert catalog.most_replicas == 1
        await second.start()
        assert (catalog.states(), catalog.most_replicas) == ({"m": "ready"}, 2)

    asyncio.run(scenario())


def test_calls_are_admitted_by_the_replicas_that_are_ready() -> None:
    ready = 2
    admission = Admission(3, lambda: ready)
    slots = [admission.slot() for _ in range(7)]
    for slot in slots[:6]:
        slot.__enter__()
    with pytest.raises(ApiError, match="Too many"):
        slots[6].__enter__()
    slots[0].__exit__(None, None, None)
    admission.check()
    ready = 1
    with pytest.raises(ApiError, match="Too many"):
        admission.check()
    for slot in slots[1:4]:
        slot.__exit__(None, None, None)
    admission.check()


def test_figures_are_told_of_each_replica() -> None:
    async def scenario() -> None:
        first = ScriptedEngine()
        await first.start()
        body, _ = Metrics({"m": Pair(first, ScriptedEngine())}).render("")
        text = body.decode()
        for line in (
            'outcrop_engine_ready{engine="0",model_name="m"} 1.0',
            'outcrop_engine_ready{engine="1",model_name="m"} 0.0',
            'vllm:prompt_tokens_total{engine="0",model_name="m"} 7.0',
            'vllm:prompt_tokens_total{engine="1",model_name="m"} 7.0',
            'outcrop_routed_requests_total{model_name="m",reason="prefix"} 5.0',
            'outcrop_moved_requests_total{model_name="m"} 2.0',
        ):
            assert line in text

    asyncio.run(scenario())
    parts = [EngineStats(running=1, kv_blocks_used=3), EngineStats(running=4, device_idle_us=9)]
    assert EngineStats.sum(parts) == EngineStats(running=5, kv_blocks_used=3, device_idle_us=9)


def test_weights_with_another_vocabulary_are_not_taken_over(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.symlink_to(PATH)
    settings = Settings(models=(ModelSettings(path=PATH),))
    wanted = Settings(models=(ModelSettings(path=other),))

    def configure(model: ModelSettings) -> list[EngineConfig]:
        return [EngineConfig(model=str(model.path))]

    async def scenario() -> None:
        engine = ReplicaSet(configure(settings.models[0]))
        rollover = Rollover(settings, lambda: wanted, configure, [engine], [served(engine, "m")])
        await rollover.run()
        await engine.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert caplog.messages == [
        f"m is not updated: {other} has another vocabulary than what is served; serve it under an id of its "
        "own, or start the server anew"
    ]


def test_a_session_reaches_the_engine(http: httpx.Client, server: Server) -> None:
    hello = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    for headers in ({}, {"x-outcrop-session": "s" * 300}):
        assert http.post(
            "/model/meta.llama3-8b-instruct-v1:0/converse", json=hello, headers=headers
        ).is_success
    assert [request.session for request in server.engine.requests] == ["", "s" * 256]
