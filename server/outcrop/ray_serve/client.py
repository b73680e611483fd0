"""The API's handle on a model whose replicas Ray runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError
from ray.serve.exceptions import RayServeException

from outcrop.engine.abilities import ABILITIES, Abilities, common
from outcrop.engine.client import EngineClient, EngineUnavailable
from outcrop.engine.messages import GenerationDelta, GenerationRequest
from outcrop.engine.relay import relayed
from outcrop.engine.stats import EngineStats
from outcrop.ray_serve.replica import Report
from outcrop.ray_serve.tally import StatsTally

logger = logging.getLogger(__name__)

_LOST = (RayActorError, ObjectLostError, RayServeException, EngineUnavailable)
"""What a call raises when its replica has died, is out of reach, or has no engine for it. (What an engine
raises arrives as an instance of its own class, too.)"""

_PERIOD = 2.0
"""Seconds between two looks at the replicas."""


class RayEngine(EngineClient):
    """All replicas of one model. Which of them gets a request is `PrefixRouter`'s choice; a request whose
    replica dies goes on at another one (`relayed`), and one that finds none waits for Ray to start it."""

    def __init__(self, handle: Any) -> None:
        """handle: Ray's `DeploymentHandle` on deployed `EngineReplica`s."""
        self._handle = handle
        self._generate = handle.options(method_name="generate", stream=True)
        self._watch: asyncio.Task[None] | None = None
        self._reports: list[Report] = []
        self._tally = StatsTally()
        self._max_model_len = 0
        self._abilities = ABILITIES["outcrop"]

    async def start(self) -> None:
        try:
            self._note([await self._handle.report.remote()])  # waits for the first replica
        except _LOST as error:
            raise EngineUnavailable(str(error)) from error
        self._watch = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Leave the replicas to Ray."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._reports = []

    @property
    def ready(self) -> bool:
        return any(report.ready for report in self._reports)

    @property
    def drained(self) -> str:
        """Of the last replica that is left, if its hardware failed."""
        reasons = [report.drained for report in self._reports]
        return reasons[0] if reasons and all(reasons) else ""

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    @property
    def abilities(self) -> Abilities:
        return self._abilities

    @property
    def stats(self) -> EngineStats:
        return self._tally.total

    @property
    def restarts(self) -> int:
        """Of the engine processes on their hosts; a replica that Ray replaced begins with 0."""
        return sum(report.restarts for report in self._reports)

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        return relayed(request, self._ask, _LOST)

    async def _ask(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        stream = self._generate.remote(request)
        try:
            async for delta in stream:
                yield delta
        finally:
            stream.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            answers = self._handle.broadcast("report").results_async(return_exceptions=True)
            try:
                found = await asyncio.wait_for(answers, _PERIOD)
            except (*_LOST, TimeoutError) as error:
                # Those that were there count on: calls wait for the replicas that Ray is about to start.
                logger.warning("the replicas of %s do not report: %s", self._handle.deployment_name, error)
                continue
            self._note([each for each in found if isinstance(each, Report)])

    def _note(self, reports: list[Report]) -> None:
        self._reports = reports
        self._tally.update({report.replica: report.stats for report in reports})
        if reports:
            # While replicas of two versions are up, a request has to suit either.
            self._max_model_len = min(report.max_model_len for report in reports)
            self._abilities = common(report.abilities for report in reports)
