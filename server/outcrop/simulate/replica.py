"""One engine in virtual time: its real scheduler, and a device that takes as long as the model says."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass

import numpy as np

from outcrop.backends.base import StepOutput
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.scheduled_step import ScheduledStep
from outcrop.engine.scheduler import RefusedError, Scheduler
from outcrop.simulate.leap import Leap, find_leap
from outcrop.simulate.lives import NEVER, Lives
from outcrop.simulate.machine import Machine
from outcrop.simulate.serving import Ahead
from outcrop.simulate.trace import NS
from outcrop_compile.bucket import Bucket, StepKind


@dataclass(frozen=True, slots=True)
class Submitted:
    """changes: of the slots, after it was planned. end: nanoseconds."""

    step: ScheduledStep
    changes: int
    end: int


@dataclass(slots=True)
class Usage:
    """What the device did. busy_*: nanoseconds of steps. lanes_*: tokens that steps had room for; used_*:
    that they computed for somebody. kv_peak: blocks held at most."""

    busy_prefill: int = 0
    busy_decode: int = 0
    lanes_prefill: int = 0
    used_prefill: int = 0
    lanes_decode: int = 0
    used_decode: int = 0
    kv_peak: int = 0


class Replica:
    """The life of `EngineCore`, step for step, with a clock that is told what time it is: one step is planned
    and submitted while the one before it runs, then the older one is collected.

    Times are whole nanoseconds. While nothing but decode steps of the same requests can happen, many of them
    are taken at once (`leap.py`), which changes no time and no count; `leaping=False` takes each by itself.
    """

    def __init__(self, machine: Machine, lives: Lives, *, leaping: bool = True) -> None:
        self.machine = machine
        self.lives = lives
        self.scheduler = Scheduler(
            machine.capabilities,
            machine.serving.table(machine.buckets),
            machine.serving.policy,
            prefix_cache=False,
        )
        self.now = 0
        self.usage = Usage()
        self.ended: list[int] = []
        """Requests that ended since the caller last emptied this."""
        self.schedule_time = round(machine.host.schedule * NS)
        self.apply_time = round(machine.host.apply * NS)
        self.exposed = round(machine.host.exposed * NS)
        self._ahead = machine.serving.ahead
        self._leaping = leaping and machine.capabilities.depth == 2
        self._leap: Leap | None = None
        self._free_at = 0  # the device has done all that was submitted
        self._latest: Submitted | None = None
        self._submitted: deque[Submitted] = deque()
        self._whose = np.zeros(machine.capabilities.max_rows + 1, dtype=np.int64)  # request of each slot
        self._outputs = {bucket: _nothing(bucket) for bucket in machine.buckets}

    @property
    def idle(self) -> bool:
        return self.scheduler.idle and not self._submitted

    def add(self, index: int, now: int) -> None:
        """A request of the trace arrives. What begins before `now` has been run."""
        if self._leap is not None:
            self._take(self._leap, self._leap.begun_before(now))
            self._leap = None
        if self.idle:
            self.now = max(self.now, now)
        trace = self.lives.trace
        self.lives.arrival[index] = now
        sampling = SamplingParams(int(trace.output[index]))
        try:
            # An array, of which numpy takes a copy in a fiftieth of the time that it needs for a list.
            prompt = array("i", (0,)) * int(trace.prompt[index])
            self.scheduler.add(GenerationRequest(str(index), prompt, sampling))
        except RefusedError:
            self.lives.refused += 1
            self.ended.append(index)

    def run_until(self, limit: int, *, stop_at_end: bool = False) -> None:
        """Run everything that begins before `limit`; stop_at_end: but only until a request ends."""
        while self.now < limit and not self.idle:
            if self._leap is not None:
                if self._leap.next_start <= limit:
                    self._take(self._leap, self._leap.count)
                    self._leap = None
                else:
                    # Taken as far as time allows when somebody comes, or at the end.
                    return
                continue
            self._iterate()
            if self.ended and stop_at_end:
                return
            if self._leaping:
                self._leap = find_leap(self, self._submitted)

    def _iterate(self) -> None:
        """`EngineCore.step` at `now`."""
        step = self.scheduler.schedule()
        if step is not None:
            self.now += self.schedule_time
            self._submit(step)
            self._note_blocks()
        elif not self._submitted:
            raise RuntimeError(
                "requests wait, and no step can run: the KV cache is too small for any of them"
            )
        if step is not None and len(self._submitted) < self.machine.capabilities.depth:
            return
        self._collect(self._submitted.popleft())

    def _submit(self, step: ScheduledStep) -> None:
        ready = self.now
        bucket = step.bucket
        if self._latest is not None and not self._is_ahead(step, self._latest):
            # What it needs is on its way through the host until so long after the step before.
            ready = max(ready, self._latest.end + self.exposed)
        duration = self.machine.durations[bucket]
        self._free_at = max(self._free_at, ready) + duration
        if bucket.kind is StepKind.PREFILL:
            self._begin_prompts(step)
            self.usage.busy_prefill += duration
            self.usage.lanes_prefill += bucket.rows * bucket.width
            self.usage.used_prefill += int((step.ends - step.starts).sum())
        else:
            self.count_decodes(bucket, len(step.slots), 1)
        self._latest = Submitted(step, self.scheduler.slots.changes, self._free_at)
        self._submitted.append(self._latest)

    def _note_blocks(self) -> None:
        pool = self.scheduler.pool
        self.usage.kv_peak = max(self.usage.kv_peak, pool.num_blocks - pool.num_free)

    def _is_ahead(self, step: ScheduledStep, before: Submitted) -> bool:
        if self._ahead is Ahead.STEADY:
            decodes = step.bucket.kind is before.step.bucket.kind is StepKind.DECODE
            return (
                decodes
                and step.bucket is before.step.bucket
                and self.scheduler.slots.changes == before.changes
                and len(step.slots) == len(before.step.slots)
            )
        return self._ahead is Ahead.ALL

    def count_decodes(self, bucket: Bucket, rows: int, steps: int) -> None:
        self.usage.busy_decode += steps * self.machine.durations[bucket]
        self.usage.lanes_decode += steps * bucket.rows
        self.usage.used_decode += steps * rows

    def _begin_prompts(self, step: ScheduledStep) -> None:
        for slot in step.slots.tolist():
            index = int(self.scheduler.slots.owners[slot].id)
            self._whose[slot] = index
            if self.lives.begun[index] == NEVER:
                self.lives.begun[index] = self.now

    def _collect(self, oldest: Submitted) -> None:
        self.now = max(self.now, oldest.end)
        news = self.scheduler.apply(oldest.step, self._outputs[oldest.step.bucket])
        self.now += self.apply_time
        if not len(news):
            return  # a chunk of a prompt, or a step of requests that had ended
        lives = self.lives
        indices = self._whose[news.slots]
        if news.others:  # no request of a simulation asks for more than tokens, so these have ended
            ended = [int(final.request_id) for final in news.others]
            lives.tokens[ended] = [final.generated for final in news.others]
            self.ended += ended
            indices = np.concatenate([indices, np.array(ended, dtype=np.int64)])
        if oldest.step.bucket.kind is StepKind.PREFILL:
            new = indices[lives.first[indices] == NEVER]
            lives.first[new] = lives.last[new] = self.now
        gaps = self.now - lives.last[indices]
        lives.longest[indices] = np.maximum(lives.longest[indices], gaps)
        lives.last[indices] = self.now

    def _take(self, leap: Leap, count: int) -> None:
        """The first `count` steps of a leap."""
        if not count:
            return
        leap.take(self.scheduler, count)
        self._note_blocks()
        self.count_decodes(leap.bucket, len(leap.rows), count)
        lives, indices = self.lives, self._whose[leap.rows]
        gaps = leap.first_end - lives.last[indices]
        if count > 1:
            gaps = np.maximum(gaps, leap.period)
        lives.longest[indices] = np.maximum(lives.longest[indices], gaps)
        self.now = leap.start_of(count)
        lives.last[indices] = self.now
        self._free_at = leap.end_of(count)
        before = self._submitted.popleft()
        changes = self.scheduler.slots.changes
        self._latest = Submitted(leap.last_step(before.step), changes, self._free_at)
        self._submitted.append(self._latest)


def _nothing(bucket: Bucket) -> StepOutput:
    """What a step brings where nobody looks at tokens: one for each row, none of which ends an answer."""
    return StepOutput(
        step_id=0,
        tokens=np.zeros(bucket.rows, dtype=np.int32),
        finite=np.ones(bucket.rows, dtype=np.uint8),
        device_us=0,
    )
