"""From a scheduled step to the arrays a backend runs: padding, block tables, slots, draws."""

from __future__ import annotations

import numpy as np

from outcrop.backends.base import Capabilities, StepInput, StepKind
from outcrop.engine.draws import draws
from outcrop.engine.edits import gather
from outcrop.engine.request import Request
from outcrop.engine.scheduler import Row, ScheduledStep


class StepPlanner:
    """Builds StepInputs. Keeps, per slot, what changes rarely (block table, sampling, seed), so that a
    decode step costs a few numpy gathers whatever the number of rows. The last slot is the sink."""

    def __init__(self, capabilities: Capabilities, max_blocks: int) -> None:
        slots = capabilities.max_rows + 1
        self.vocab_size = capabilities.vocab_size
        self.block_size = capabilities.block_size
        self.sink_slot = capabilities.max_rows
        self.sink_block = capabilities.num_blocks
        self._tables = np.full((slots, max_blocks), self.sink_block, dtype=np.int32)
        self._lengths = [0] * slots  # blocks of each slot's table that are written
        self._owners: list[tuple[Request, int] | None] = [None] * slots
        self._sampling = np.zeros((slots, 4), dtype=np.float32)
        self._seeds = np.zeros(slots, dtype=np.uint64)
        self._next_id = 0

    def build(self, step: ScheduledStep) -> StepInput:
        bucket, rows = step.bucket, step.rows
        for row in rows:
            self._refresh(row.request)
        slots = np.full(bucket.rows, self.sink_slot, dtype=np.int32)
        slots[: len(rows)] = [row.request.slot for row in rows]
        starts = np.zeros(bucket.rows, dtype=np.int32)
        starts[: len(rows)] = [row.start for row in rows]
        counts = np.zeros(bucket.rows, dtype=np.int32)
        counts[: len(rows)] = [row.count for row in rows]
        sampled = np.zeros(bucket.rows, dtype=np.int32)
        sampled[: len(rows)] = [row.samples for row in rows]

        lane = np.arange(bucket.width, dtype=np.int32)[None, :]
        live = lane < counts[:, None]
        positions = np.where(live, starts[:, None] + lane, 0).astype(np.int32)
        tables = self._tables[slots, : bucket.blocks]
        block = np.take_along_axis(tables, positions // self.block_size, axis=1)
        slot_mapping = np.where(
            live, block * self.block_size + positions % self.block_size, self.sink_block * self.block_size
        ).astype(np.int32)

        shape = (bucket.rows, bucket.width)
        token_ids = np.zeros(shape, dtype=np.int32)
        use_last = np.zeros(shape, dtype=np.int32)
        if bucket.kind is StepKind.DECODE:
            use_last[: len(rows), 0] = 1
        else:
            _copy_tokens(token_ids, rows)
        ends = (starts + counts).astype(np.int32)
        edited = [
            (index, row.request.edits)
            for index, row in enumerate(rows)
            if row.samples and row.request.edits is not None
        ]
        allowed, bias, repetition = gather(edited, bucket.rows, self.vocab_size)
        self._next_id += 1
        return StepInput(
            step_id=self._next_id,
            bucket=bucket,
            token_ids=token_ids,
            use_last=use_last,
            positions=positions,
            slot_mapping=slot_mapping,
            block_tables=tables,
            context_lens=ends,
            logits_idx=np.maximum(counts - 1, 0).astype(np.int32),
            sampled=sampled,
            slots=slots,
            sampling=self._sampling[slots],
            draws=draws(self._seeds[slots], ends),
            allowed=allowed,
            bias=bias,
            repetition=repetition,
        )

    def _refresh(self, request: Request) -> None:
        """Bring a slot's row up to date with the request that owns it now."""
        slot, count = request.slot, len(request.blocks)
        owner = (request, request.admissions)
        if self._owners[slot] != owner:
            self._owners[slot] = owner
            self._tables[slot] = self.sink_block
            self._lengths[slot] = 0
            sampling = request.sampling
            self._sampling[slot] = (
                sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p,
            )  # fmt: skip
            self._seeds[slot] = sampling.seed & 0xFFFFFFFFFFFFFFFF
        written = self._lengths[slot]
        if count > written:
            self._tables[slot, written:count] = request.blocks[written:]
            self._lengths[slot] = count


def _copy_tokens(token_ids: np.ndarray[tuple[int, int], np.dtype[np.int32]], rows: list[Row]) -> None:
    for index, row in enumerate(rows):
        token_ids[index, : row.count] = row.request.tokens[row.start : row.start + row.count]
