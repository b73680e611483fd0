"""Many identical decode steps at once.

Between an arrival, an end and a change of bucket, an engine that decodes does the same thing over and over:
every row has one more token, some begin a block. Its times follow from the first of these steps, and so do
its scheduler's columns. Taking them at once changes nothing that a step by step run would show
(`tests/simulate/test_leap.py` compares them); only which blocks a request gets may differ, not how many."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from outcrop.engine.scheduled_step import ScheduledStep
from outcrop.engine.scheduler import Scheduler
from outcrop.engine.slots import Index
from outcrop.simulate.serving import Ahead
from outcrop_compile.bucket import Bucket, StepKind

if TYPE_CHECKING:
    from outcrop.simulate.replica import Replica, Submitted


@dataclass(frozen=True, slots=True)
class Leap:
    """`count` iterations of the engine's loop that submit decode steps of `rows` in `bucket`, each of them
    collecting the step before.

    total: of these rows' slots, before it.
    Nanoseconds: the first iteration starts at `start` and ends at `first_end`; each further one starts where
    the one before it ended and takes `period`. pending_end: end of the step that is submitted already."""

    rows: Index
    total: Index
    bucket: Bucket
    count: int
    start: int
    first_end: int
    period: int
    pending_end: int

    @property
    def next_start(self) -> int:
        """Of the first iteration that is not of the leap."""
        return self.start_of(self.count)

    def start_of(self, number: int) -> int:
        return self.start if number == 0 else self.first_end + (number - 1) * self.period

    def end_of(self, number: int) -> int:
        """When the device is through with what `number` iterations submitted."""
        return self.pending_end + number * self.period

    def begun_before(self, time: int) -> int:
        """How many of them start before that."""
        if time <= self.start:
            return 0
        return min(self.count, 1 + max(0, -(-(time - self.first_end) // self.period)))

    def take(self, scheduler: Scheduler, count: int) -> None:
        """Bring the scheduler's books to where `count` steps would."""
        slots, rows, totals = scheduler.slots, self.rows, scheduler.totals
        known = self.total + (count - 1)
        while np.count_nonzero(lacks := known > slots.room[rows]):
            short = rows[lacks]
            slots.grow(short, scheduler.pool.allocate(len(short)))
        # The token of the step that is out is asked for and not known, before as after.
        slots.total[rows] = known + 1
        slots.known[rows] = known
        totals.generation_tokens += count * len(rows)
        totals.decode_steps += count
        totals.padded_tokens += count * (self.bucket.rows - len(rows))
        scheduler.decodes_in_a_row += count

    def last_step(self, before: ScheduledStep) -> ScheduledStep:
        """What is submitted after it, `before` being what was before."""
        return before if before.bucket is self.bucket else replace(before, bucket=self.bucket)


def find_leap(replica: Replica, submitted: deque[Submitted]) -> Leap | None:
    """The iterations from now on that can only decode the same rows once more; None if there are not two."""
    scheduler = replica.scheduler
    if len(submitted) != 1 or scheduler.prefilling or scheduler.draining:
        return None
    pending, slots = submitted[0], scheduler.slots
    step = pending.step
    rows, ahead = step.slots, replica.machine.serving.ahead
    if step.bucket.kind is not StepKind.DECODE or len(rows) != len(scheduler.running):
        return None
    if slots.changes != pending.changes and (ahead is Ahead.STEADY or not slots.decoding[rows].all()):
        return None  # the next step has other rows
    if _may_admit(scheduler):
        return None
    total = slots.total[rows]
    longest = int(total.max())
    size = scheduler.capabilities.block_size
    bucket = scheduler.buckets.pick(StepKind.DECODE, len(rows), 1, -(-longest // size))
    count = min(int((slots.limit[rows] - total).min()), bucket.blocks * size - longest + 1)
    count = _with_blocks(scheduler, rows, total, count)
    if count < 2:
        return None
    waits = replica.exposed if ahead is Ahead.NONE else 0
    steady = ahead is not Ahead.STEADY or bucket is step.bucket
    period = waits + replica.machine.durations[bucket]
    host = replica.schedule_time + replica.apply_time
    device_bound = replica.now + replica.schedule_time <= pending.end and host <= period
    if not (steady and device_bound):
        return None
    return Leap(
        rows=rows,
        total=total,
        bucket=bucket,
        count=count,
        start=replica.now,
        first_end=pending.end + replica.apply_time,
        period=period,
        pending_end=pending.end,
    )


def _may_admit(scheduler: Scheduler) -> bool:
    """Whether the first that waits could be admitted before one that runs ends. Room in the KV cache only
    gets less until then."""
    if not scheduler.waiting or not scheduler.slots.free:
        return False
    needed = -(-len(scheduler.waiting[0].tokens) // scheduler.capabilities.block_size)
    return scheduler.pool.num_free >= needed + len(scheduler.running)


def _with_blocks(scheduler: Scheduler, rows: Index, total: Index, count: int) -> int:
    """As many steps, of so many, as there are free blocks for."""
    size, room = scheduler.capabilities.block_size, scheduler.slots.room[rows]

    def lacking(steps: int) -> int:
        return int(np.maximum(0, -(-(total + (steps - 1) - room) // size)).sum())

    free = scheduler.pool.num_free
    # Most of the time there is room for more than they can want.
    if count < 2 or len(rows) * (count // size + 1) <= free or lacking(count) <= free:
        return count
    enough, too_many = 0, count
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if lacking(middle) <= free:
            enough = middle
        else:
            too_many = middle
    return enough
