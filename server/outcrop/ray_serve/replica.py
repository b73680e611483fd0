"""One replica of a model: engine processes on one host, and the Ray actor that others reach them through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
import ray
from ray import serve

from outcrop.engine.abilities import Abilities
from outcrop.engine.client import EngineUnavailable
from outcrop.engine.messages import GenerationDelta, GenerationRequest
from outcrop.engine.stats import EngineStats
from outcrop.ray_serve.autoscaling import KV_USE
from outcrop.server import build_engine
from outcrop.settings import ModelSettings, Settings
from outcrop.telemetry import logs

NEURON_CORES = "neuron_cores"
"""Ray's name for NeuronCores, which it finds and hands out by itself."""


class Report(msgspec.Struct, frozen=True):
    """How a replica is. replica: its name, which no other ever has. The others as of `EngineClient`."""

    replica: str
    ready: bool
    drained: str
    max_model_len: int
    abilities: Abilities
    restarts: int
    stats: EngineStats


class EngineReplica:
    """What Ray calls, on one event loop. Whatever keeps engines running on a host, one or several behind a
    router, is `ReplicaSet`'s: restarts, hangs, requests that kill them. Ray starts another replica for one
    that is beyond that, and none for one whose hardware failed: it stays, so that nothing else is loaded onto
    its cores, and gets no request (`PrefixRouter`)."""

    # Ray awaits constructors; Python's own protocol, and so mypy, knows no such thing.
    async def __init__(self, model: ModelSettings, settings: Settings) -> None:  # type: ignore[misc]
        """Returns when an engine is ready. Raises EngineUnavailable, and ValueError and OSError for settings
        and cores that cannot be."""
        logs.configure(settings.log_level, settings.telemetry.log_format)
        if model.backend == "neuron":
            model = model.model_copy(update={"cores": _assigned_cores()})
        self._name: str = serve.get_replica_context().replica_id.unique_id
        self._engine = await asyncio.to_thread(build_engine, model, settings)
        await self._engine.start()
        self._given_up = asyncio.create_task(self._engine.given_up())

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        """As of `EngineClient.generate`."""
        async with aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def report(self) -> Report:
        engine = self._engine
        return Report(
            replica=self._name,
            ready=engine.ready,
            drained=engine.drained,
            max_model_len=engine.max_model_len,
            abilities=engine.abilities,
            restarts=engine.restarts,
            stats=engine.stats,
        )

    # -- called by Ray, by these names -----------------------------------------------------------

    async def check_health(self) -> None:
        """Raises where Ray is to replace this replica."""
        if self._given_up.done() and not self._engine.drained:
            raise EngineUnavailable(self._given_up.result())

    async def record_replica_metadata(self) -> dict[str, Any]:
        """Once, for the router. kv_blocks: of all its engines' KV memory."""
        engines = self._engine.replicas
        return {"kv_blocks": engines[0].num_blocks * len(engines)}  # the others may still be starting

    async def record_routing_stats(self) -> dict[str, Any]:
        """Every so often, for the router."""
        return {"drained": bool(self._engine.drained)}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Every so often, for the autoscaler."""
        stats = self._engine.stats
        return {KV_USE: stats.kv_blocks_used / max(1, stats.kv_blocks_total)}

    async def __del__(self) -> None:
        await self._engine.close()


def _assigned_cores() -> str:
    """The NeuronCores that Ray has given this actor, as `EngineConfig.cores`. Raises ValueError. Not yet run
    on a device."""
    ids = sorted(map(int, ray.get_runtime_context().get_accelerator_ids()[NEURON_CORES]))
    if not ids or ids != list(range(ids[0], ids[0] + len(ids))):
        raise ValueError(
            f"Ray has assigned the NeuronCores {ids}, which are not in a row, as collectives need them: give "
            "all replicas of this host the same number of cores"
        )
    return f"{ids[0]}-{ids[-1]}"
