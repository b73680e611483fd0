"""From a scheduled step to the arrays a backend runs: padding, block tables, slots, draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outcrop.backends.base import F32, I32, Bucket, Capabilities, StepInput, StepKind
from outcrop.engine.draws import draws
from outcrop.engine.edits import LogitEdits, gather
from outcrop.engine.scheduler import ScheduledStep
from outcrop.engine.slots import Index, Slots


@dataclass(frozen=True, slots=True)
class _Frame:
    """The part of a StepInput that is the same in the next decode step if the same requests run in it.
    changes: of the slots, when it was gathered. rows: the step's slots. held: [n] blocks of each row's
    table that are written."""

    bucket: Bucket
    changes: int
    rows: Index
    held: Index
    slots: I32
    token_ids: I32
    use_last: I32
    block_tables: I32
    logits_idx: I32
    sampled: I32
    sampling: F32
    streams: npt.NDArray[np.uint64]
    edited: list[tuple[int, LogitEdits]]


class StepPlanner:
    """Builds StepInputs from the slots' columns, whatever the number of rows with the same few numpy calls;
    from one decode step to the next with the same requests, only what moves is computed again.

    Successive steps then share arrays. Of those, only `block_tables` is ever written to, and there only
    entries beyond what the steps that are out may read."""

    def __init__(self, capabilities: Capabilities, slots: Slots) -> None:
        self.vocab_size = capabilities.vocab_size
        self.block_size = capabilities.block_size
        self.slots = slots
        self._frame: _Frame | None = None
        self._rows = np.arange(capabilities.max_rows, dtype=np.intp)

    def build(self, step: ScheduledStep) -> StepInput:
        bucket, rows, size = step.bucket, step.slots, self.block_size
        frame, count = self._frame_of(step), len(step.slots)
        sink = self.slots.sink_block * size
        positions = np.zeros((bucket.rows, bucket.width), dtype=np.int32)
        mapping = np.full((bucket.rows, bucket.width), sink, dtype=np.int32)
        ends = np.zeros(bucket.rows, dtype=np.int32)
        ends[:count] = step.starts + step.counts
        if bucket.kind is StepKind.DECODE and bucket.width == 1:
            starts = step.starts
            positions[:count, 0] = starts
            block = frame.block_tables[self._rows[:count], starts // size]
            mapping[:count, 0] = block * size + starts % size
        else:
            lane = np.arange(bucket.width)
            live = lane < step.counts[:, None]
            at = np.where(live, step.starts[:, None] + lane, 0)
            positions[:count] = at
            block = np.take_along_axis(frame.block_tables[:count], at // size, axis=1)
            mapping[:count] = np.where(live, block * size + at % size, sink)
            if step.drafts is not None:
                frame.token_ids[:count, 1:] = step.drafts
            else:
                frame.token_ids[:count] = np.where(live, self.slots.tokens[rows[:, None], at], 0)
        of_streams, places = frame.streams, ends
        if step.drafts is not None:  # a draw for each token
            of_streams, places = of_streams[:, None], positions + 1
        allowed, bias, repetition = gather(frame.edited, bucket.rows, self.vocab_size)
        return StepInput(
            step_id=step.number,
            bucket=bucket,
            token_ids=frame.token_ids,
            use_last=frame.use_last,
            positions=positions,
            slot_mapping=mapping,
            block_tables=frame.block_tables,
            context_lens=ends,
            logits_idx=frame.logits_idx,
            sampled=frame.sampled,
            slots=frame.slots,
            sampling=frame.sampling,
            draws=draws(of_streams, places),
            allowed=allowed,
            bias=bias,
            repetition=repetition,
        )

    def _frame_of(self, step: ScheduledStep) -> _Frame:
        frame, slots = self._frame, self.slots
        if step.bucket.kind is not StepKind.DECODE:
            return self._gather(step)
        if (
            frame is None
            or frame.bucket is not step.bucket
            or frame.changes != slots.changes
            or len(frame.rows) != len(step.slots)
            or not (frame.rows == step.slots).all()
        ):
            self._frame = self._gather(step)
            return self._frame
        held = slots.num_blocks[step.slots]
        grown = (held != frame.held).nonzero()[0]
        if len(grown):
            frame.held[grown] = held[grown]
            frame.block_tables[grown] = slots.tables[step.slots[grown], : frame.bucket.blocks]
        return frame

    def _gather(self, step: ScheduledStep) -> _Frame:
        bucket, rows, slots, count = step.bucket, step.slots, self.slots, len(step.slots)
        padded = np.full(bucket.rows, slots.sink, dtype=np.intp)
        padded[:count] = rows
        use_last = np.zeros((bucket.rows, bucket.width), dtype=np.int32)
        if bucket.kind is not StepKind.PREFILL:
            use_last[:count, 0] = 1
        logits_idx = np.zeros(bucket.rows, dtype=np.int32)
        logits_idx[:count] = step.counts - 1
        sampled = np.zeros(bucket.rows, dtype=np.int32)
        sampled[:count] = step.samples
        edited = (slots.edited[rows] & step.samples).nonzero()[0].tolist()
        return _Frame(
            bucket=bucket,
            changes=slots.changes,
            rows=rows,
            held=slots.num_blocks[rows],
            slots=padded.astype(np.int32),
            token_ids=np.zeros((bucket.rows, bucket.width), dtype=np.int32),
            use_last=use_last,
            block_tables=slots.tables[:, : bucket.blocks][padded],
            logits_idx=logits_idx,
            sampled=sampled,
            sampling=slots.sampling[padded],
            streams=slots.streams[padded],
            edited=[(index, slots.owners[rows[index]].edits) for index in edited],
        )
