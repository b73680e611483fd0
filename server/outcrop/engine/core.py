"""The engine: the only place where scheduler, planner and backend meet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from outcrop.backends.base import Backend, StepHandle, StepKind
from outcrop.engine.buckets import BucketTable
from outcrop.engine.edits import Matcher
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest
from outcrop.engine.plan import StepPlanner
from outcrop.engine.policy import Policy
from outcrop.engine.scheduler import RefusedError, ScheduledStep, Scheduler
from outcrop.engine.stats import EngineStats


class EngineCore:
    """Requests in, deltas out, one step at a time.

    Keeps up to `capabilities.depth` steps submitted: the next step is planned and submitted while the
    device runs the one before it, so the device never waits for the host. While a request runs whose next
    choice depends on its tokens, there is one step at a time: it has to wait for each of its tokens
    anyway, and letting the others run ahead of it would double the time between its steps, since the
    device would be busy with a step without it each time its token arrives. `on_prefill` is told whose
    prompts a step computes, before it is submitted.
    """

    def __init__(self, backend: Backend, policy: Policy, *, prefix_cache: bool = True) -> None:
        self.backend = backend
        table = BucketTable(backend.buckets)
        self.scheduler = Scheduler(backend.capabilities, table, policy, prefix_cache=prefix_cache)
        self._planner = StepPlanner(backend.capabilities, max(b.blocks for b in table.buckets))
        self._submitted: deque[tuple[ScheduledStep, StepHandle]] = deque()
        self.on_prefill: Callable[[list[str]], None] = lambda request_ids: None

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

    def step(self) -> list[GenerationDelta]:
        """Submit the next step if there is one and room for it; collect the oldest if there is no room
        for another, or nothing else to do."""
        scheduled = None if self.scheduler.awaits_token else self.scheduler.schedule()
        if scheduled is not None:
            if scheduled.bucket.kind is StepKind.PREFILL:
                self.on_prefill([row.request.id for row in scheduled.rows])
            step_input = self._planner.build(scheduled)
            self._submitted.append((scheduled, self.backend.submit(step_input)))
        if not self._submitted:
            return []
        if scheduled is not None and len(self._submitted) < self.backend.capabilities.depth:
            return []
        step, handle = self._submitted.popleft()
        return self.scheduler.apply(step, self.backend.collect(handle))

    def stats(self) -> EngineStats:
        return self.scheduler.stats()
