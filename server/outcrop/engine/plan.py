"""From a scheduled step to the arrays a backend runs: padding, block tables, slots, draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outcrop.backends.base import F32, I32, Capabilities, StepInput
from outcrop.engine.draws import draws
from outcrop.engine.edits import LogitEdits, gather
from outcrop.engine.scheduled_step import ScheduledStep
from outcrop.engine.slots import Index, Slots
from outcrop_compile.bucket import Bucket, StepKind

_DRAWS_AHEAD = 1024
"""Draws made at once: their cost is in the number of numpy calls up to about so many of them."""


@dataclass(slots=True)
class _Frame:
    """The arrays of a step, most of which are the same in the next decode step with the same requests.

    changes: of the slots, when they were gathered. rows: the step's slots. live: [R] 1 where a row is no
    padding. draws: [K, R] for this step (`turn`) and those after it; [1, R, Q] for a verify step.
    The rest as in StepInput.
    """

    bucket: Bucket
    changes: int
    rows: Index
    live: I32
    streams: npt.NDArray[np.uint64]
    draws: F32
    turn: int
    edited: list[tuple[int, LogitEdits]]
    logprobs: bool
    token_ids: I32
    use_last: I32
    positions: I32
    slot_mapping: I32
    block_tables: I32
    context_lens: I32
    logits_idx: I32
    sampled: I32
    slots: I32
    sampling: F32


class StepPlanner:
    """Builds StepInputs from the slots' columns: from one decode step to the next with the same requests, by
    moving each of them on by one token.

    Successive steps then share arrays. Of those, only `block_tables` is ever written to, and there only
    entries beyond what the steps that are out may read."""

    def __init__(self, capabilities: Capabilities, slots: Slots) -> None:
        self.vocab_size = capabilities.vocab_size
        self.block_size = capabilities.block_size
        self.slots = slots
        self._latest: _Frame | None = None  # of a decode step

    def build(self, step: ScheduledStep) -> StepInput:
        frame = self._latest
        if (
            frame is not None
            and frame.bucket is step.bucket
            and frame.changes == self.slots.changes
            and len(frame.rows) == len(step.slots)
            and (frame.rows == step.slots).all()
        ):
            self._advance(frame, step)
        else:
            frame = self._gather(step)
            if step.bucket.kind is StepKind.DECODE:
                self._latest = frame
            elif step.drafts is not None:
                self._latest = None  # nobody knows yet how far this step brings its rows
        allowed, bias, repetition = gather(frame.edited, step.bucket.rows, self.vocab_size)
        return StepInput(
            step_id=step.number,
            bucket=step.bucket,
            token_ids=frame.token_ids,
            use_last=frame.use_last,
            positions=frame.positions,
            slot_mapping=frame.slot_mapping,
            block_tables=frame.block_tables,
            context_lens=frame.context_lens,
            logits_idx=frame.logits_idx,
            sampled=frame.sampled,
            slots=frame.slots,
            sampling=frame.sampling,
            draws=frame.draws[frame.turn],
            allowed=allowed,
            bias=bias,
            repetition=repetition,
            logprobs=frame.logprobs,
        )

    def _advance(self, frame: _Frame, step: ScheduledStep) -> None:
        """Each row is one token further, and those of `step.begun` begin their next block."""
        each = frame.live[:, None]
        frame.positions = frame.positions + each
        frame.slot_mapping = frame.slot_mapping + each
        frame.context_lens = frame.context_lens + frame.live
        begun = step.begun
        if len(begun):
            place = step.starts[begun] // self.block_size
            blocks = self.slots.tables[step.slots[begun], place]
            frame.block_tables[begun, place] = blocks
            frame.slot_mapping[begun, 0] = blocks * self.block_size
        frame.turn += 1
        if frame.turn == len(frame.draws):
            self._draw_ahead(frame)

    def _draw_ahead(self, frame: _Frame) -> None:
        """The next draws of every row, as far as it may go on like this; in a verify step, of every token."""
        frame.turn, kind = 0, frame.bucket.kind
        if kind is StepKind.VERIFY:
            frame.draws = draws(frame.streams[:, None], frame.positions + 1)[None]
            return
        count = max(1, _DRAWS_AHEAD // len(frame.live)) if kind is StepKind.DECODE else 1
        frame.draws = draws(frame.streams, frame.context_lens + np.arange(count, dtype=np.int32)[:, None])

    def _gather(self, step: ScheduledStep) -> _Frame:
        bucket, rows, slots, count = step.bucket, step.slots, self.slots, len(step.slots)
        shape, size = (bucket.rows, bucket.width), self.block_size
        padded = np.full(bucket.rows, slots.sink, dtype=np.intp)
        padded[:count] = rows
        tables = slots.tables[:, : bucket.blocks][padded]
        context_lens, logits_idx, sampled, real = (np.zeros(bucket.rows, dtype=np.int32) for _ in range(4))
        context_lens[:count] = step.ends
        logits_idx[:count] = step.ends - step.starts - 1
        sampled[:count] = step.samples
        real[:count] = 1

        lanes = step.starts[:, None] + np.arange(bucket.width)
        live = lanes < step.ends[:, None]
        lanes[~live] = 0
        token_ids, use_last, positions = (np.zeros(shape, dtype=np.int32) for _ in range(3))
        positions[:count] = lanes
        if bucket.kind is not StepKind.PREFILL:
            use_last[:count, 0] = 1
        if step.drafts is not None:
            token_ids[:count, 1:] = step.drafts
        elif bucket.kind is StepKind.PREFILL:
            token_ids[:count] = np.where(live, slots.tokens[rows[:, None], lanes], 0)
        slot_mapping = np.full(shape, slots.sink_block * size, dtype=np.int32)
        blocks = np.take_along_axis(tables[:count], lanes // size, axis=1)
        slot_mapping[:count][live] = (blocks * size + lanes % size)[live]
        edited = (slots.edited[rows] & step.samples).nonzero()[0].tolist()
        frame = _Frame(
            bucket=bucket,
            changes=slots.changes,
            rows=rows,
            live=real,
            streams=slots.streams[padded],
            draws=np.empty((0, bucket.rows), dtype=np.float32),
            turn=0,
            edited=[(index, slots.owners[rows[index]].edits) for index in edited],
            logprobs=bool((slots.scored[rows] & step.samples).any()),
            token_ids=token_ids,
            use_last=use_last,
            positions=positions,
            slot_mapping=slot_mapping,
            block_tables=tables,
            context_lens=context_lens,
            logits_idx=logits_idx,
            sampled=sampled,
            slots=padded.astype(np.int32),
            sampling=slots.sampling[padded],
        )
        self._draw_ahead(frame)
        return frame
