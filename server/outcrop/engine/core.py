"""The engine: the only place where scheduler, planner and backend meet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from outcrop.backends.base import Backend, StepHandle
from outcrop.engine.abilities import ABILITIES
from outcrop.engine.buckets import BucketTable
from outcrop.engine.edits import Matcher
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest
from outcrop.engine.news import NO_NEWS, StepNews
from outcrop.engine.plan import StepPlanner
from outcrop.engine.policy import Policy
from outcrop.engine.request import Request
from outcrop.engine.scheduled_step import ScheduledStep
from outcrop.engine.scheduler import RefusedError, Scheduler
from outcrop.engine.speculation import Drafter
from outcrop.engine.stats import EngineStats
from outcrop_compile.bucket import StepKind


@dataclass(frozen=True, slots=True)
class _Submitted:
    """after_rest: before this step there was nothing for the device to do, so that it did not wait for us."""

    step: ScheduledStep
    handle: StepHandle
    after_rest: bool


class EngineCore:
    """Requests in, deltas out, one step at a time.

    Keeps up to `capabilities.depth` steps submitted: the next step is planned and submitted while the
    device runs the one before it, so the device never waits for the host. While a request runs whose next
    choice depends on its tokens, there is one step at a time: it has to wait for each of its tokens
    anyway, and letting the others run ahead of it would double the time between its steps, since the
    device would be busy with a step without it each time its token arrives. `on_prefill` is told whose
    prompts a step computes, and from then on in which slot, before it is submitted.
    """

    def __init__(
        self,
        backend: Backend,
        policy: Policy,
        *,
        prefix_cache: bool = True,
        drafter: Drafter | None = None,
        clock: Callable[[], int] = lambda: 0,
    ) -> None:
        """drafter: guesses at tokens, which then follow one another one step at a time, as above; for a
        backend with buckets to verify them. clock: nanoseconds since whenever, by which the host's time is
        told; none is told without it."""
        self.backend = backend
        table = BucketTable(backend.buckets)
        self.scheduler = Scheduler(
            backend.capabilities, table, policy, prefix_cache=prefix_cache, drafter=drafter
        )
        self._planner = StepPlanner(backend.capabilities, self.scheduler.slots)
        self._submitted: deque[_Submitted] = deque()
        self._rested = True
        self._clock = clock
        self._at_work = 0  # since this time the host has not waited for the device, nor for requests
        self._host_ns = 0
        self.abilities = msgspec.structs.replace(
            ABILITIES["outcrop"],
            logprobs=backend.capabilities.logprobs,
            prefix_cache=prefix_cache,
            speculation=drafter is not None,
        )
        self.on_prefill: Callable[[list[Request]], None] = lambda requests: None

    def add(self, request: GenerationRequest) -> GenerationDelta | None:
        """Queue a request; returns a final delta at once if it cannot or need not run. One with a grammar
        runs once `grammar_built` was told of it."""
        try:
            return self.scheduler.add(request)
        except RefusedError:
            return GenerationDelta(request.request_id, [], len(request.resumed), finish=FinishReason.ERROR)

    def grammar_built(self, request_id: str, grammar: str, matcher: Matcher | None) -> GenerationDelta | None:
        return self.scheduler.grammar_built(request_id, grammar, matcher)

    def abort(self, request_id: str) -> bool:
        return self.scheduler.abort(request_id)

    @property
    def idle(self) -> bool:
        """Nothing to do until a request is added or its grammar is built."""
        return self.scheduler.idle and not self._submitted

    def step(self) -> StepNews:
        """Submit the next step if there is one and room for it; collect the oldest if there is no room
        for another, or nothing else to do. Returns the news of the collected step."""
        if self._rested:
            self._at_work = self._clock()
        scheduled = None if self.scheduler.awaits_token else self.scheduler.schedule()
        if scheduled is not None:
            if scheduled.bucket.kind is StepKind.PREFILL:
                self.on_prefill(self.scheduler.slots.owners[scheduled.slots].tolist())
            handle = self.backend.submit(self._planner.build(scheduled))
            self._submitted.append(_Submitted(scheduled, handle, self._rested))
            self._rested = False
        if not self._submitted:
            self._rested = True
            return NO_NEWS
        if scheduled is not None and len(self._submitted) < self.backend.capabilities.depth:
            return NO_NEWS
        oldest = self._submitted.popleft()
        self._count_host_time()
        output = self.backend.collect(oldest.handle)
        self._at_work = self._clock()
        totals = self.scheduler.totals
        totals.device_busy_us += output.device_us
        totals.compiles_after_warmup += output.compiles
        if not oldest.after_rest:
            totals.device_idle_us += output.idle_us
        news = self.scheduler.apply(oldest.step, output)
        self._rested = self.idle
        if self._rested:
            self._count_host_time()
        return news

    def _count_host_time(self) -> None:
        """What has passed since the host went to work, commands and news between steps included."""
        self._host_ns += self._clock() - self._at_work
        self.scheduler.totals.host_busy_us = self._host_ns // 1000

    def stats(self) -> EngineStats:
        return self.scheduler.stats()
