"""A deterministic model without weights, for tests, load generators and simulation.

It keeps a real paged KV pool, of token ids: a row's next token is a hash of every token its block table
shows, so a wrong block, slot, position or stale block changes the answer, as it would in a real model.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from outcrop.backends.base import (
    F32,
    I32,
    U8,
    Capabilities,
    Logprobs,
    Progress,
    StepHandle,
    StepInput,
    StepOutput,
)
from outcrop.engine.speculation import accepted
from outcrop_compile.bucket import Bucket, StepKind

U64 = npt.NDArray[np.uint64]

_LANES = ("token_ids", "use_last", "positions", "slot_mapping")
"""The fields of a StepInput that have a column for each token of a row."""

_BASE = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def next_token(
    context: Sequence[int],
    vocab_size: int,
    temperature: float = 0.0,
    draw: float = 0.0,
    *,
    allowed: I32 | None = None,
    bias: F32 | None = None,
    repetition: F32 | None = None,
) -> int:
    """The model: what follows `context`. The reference that every schedule must agree with. The edits
    are one row of those of a StepInput."""
    terms = (np.asarray(context, dtype=np.uint64) + np.uint64(1)) * _powers(len(context))
    sums = terms.sum(dtype=np.uint64, keepdims=True)
    (number,) = _mix(sums, np.array([temperature], dtype=np.float32), np.array([draw], dtype=np.float32))
    return _choice(int(number), vocab_size, allowed, bias, repetition)


def _powers(count: int) -> U64:
    """[count] what the token at each position is multiplied with."""
    return np.multiply.accumulate(np.full(count, _BASE, dtype=np.uint64), dtype=np.uint64)


def _mix(sums: U64, temperatures: F32, draws: F32) -> U64:
    """Hashes, from the sum of a context's terms."""
    hashes = sums * _MIX
    noise = np.where(temperatures > 0, (draws * np.float32(2**24)).astype(np.uint64), np.uint64(0))
    hashes = (hashes ^ (hashes >> np.uint64(29))) + noise * _MIX
    mixed: U64 = hashes ^ (hashes >> np.uint64(32))
    return mixed


def _choice(
    number: int, vocab_size: int, allowed: I32 | None, bias: F32 | None, repetition: F32 | None
) -> int:
    """One row's token. This model finds all tokens equally likely (each logit is 1); its hash decides
    among those whose edited logit is the largest."""
    best = None
    if allowed is not None:
        best = np.flatnonzero(np.unpackbits(allowed.view(np.uint8), count=vocab_size, bitorder="little"))
    if bias is not None or repetition is not None:
        logits = np.ones(vocab_size, dtype=np.float32)
        if repetition is not None:
            logits /= repetition
        if bias is not None:
            logits += bias
        best = np.arange(vocab_size) if best is None else best
        best = best[logits[best] == logits[best].max(initial=-np.inf)]
    if best is None or not len(best):
        return number % vocab_size
    return int(best[number % len(best)])


@dataclass(slots=True)
class FakeHooks:
    """Failures to inject. step_seconds: how long a step takes, by its input. poison: a token that makes
    the step raise when computed. nan: a token whose row turns not finite. on_step: called with every
    step as it runs."""

    step_seconds: Callable[[StepInput], float] | None = None
    poison: int | None = None
    nan: int | None = None
    on_step: Callable[[StepInput], None] | None = None


@dataclass(slots=True)
class _Handle:
    step: StepInput
    ready_at: float = 0.0
    device_us: int = 0
    idle_us: int = 0


@dataclass
class FakeBackend:
    """Runs each step when it is collected, in order, as a device with one queue would. Checks the
    contract as it goes: indices in bounds, order of collection, depth."""

    capabilities: Capabilities
    hooks: FakeHooks = field(default_factory=FakeHooks)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        caps = self.capabilities
        self._kv = np.zeros((caps.num_blocks + 1, caps.block_size), dtype=np.int32)
        # Each block's share of a hash, as if it were the first; brought up to date when a step writes to
        # the block, so that a step costs the tokens it has and not those of all its contexts.
        self._sums = np.zeros(caps.num_blocks + 1, dtype=np.uint64)
        self._powers = _powers(caps.block_size)
        shifts = np.full(caps.num_blocks + 1, self._powers[-1], dtype=np.uint64)
        shifts[0] = 1
        self._shifts = np.cumprod(shifts)  # what moving a block by so many places multiplies its share with
        self._last = np.zeros(caps.max_rows + 1, dtype=np.int32)
        self._queue: deque[_Handle] = deque()
        self._busy_until = 0.0
        self.buckets = fake_buckets(caps)

    def warmup(self, progress: Progress) -> None:
        progress("warm-up", 1.0)

    def submit(self, step: StepInput) -> _Handle:
        if len(self._queue) >= self.capabilities.depth:
            raise RuntimeError(
                f"{len(self._queue)} steps are submitted; the depth is {self.capabilities.depth}"
            )
        handle = _Handle(step)
        if self.hooks.step_seconds is not None:
            now, seconds = self.clock(), self.hooks.step_seconds(step)
            begun = max(self._busy_until, now)
            handle.idle_us = int((begun - self._busy_until) * 1e6) if self._busy_until else 0
            handle.device_us = int(seconds * 1e6)
            handle.ready_at = self._busy_until = begun + seconds
        self._queue.append(handle)
        return handle

    def collect(self, handle: StepHandle) -> StepOutput:
        if not self._queue or self._queue[0] is not handle:
            raise RuntimeError("steps must be collected once each, in the order of submission")
        submitted = self._queue.popleft()
        if submitted.ready_at and (wait := submitted.ready_at - self.clock()) > 0:
            self.sleep(wait)
        if self.hooks.on_step is not None:
            self.hooks.on_step(submitted.step)
        step = submitted.step
        tokens, finite = self._run(step)
        return StepOutput(
            step.step_id,
            tokens,
            finite,
            submitted.device_us,
            submitted.idle_us,
            logprobs=self._logprobs(len(tokens)) if step.logprobs else None,
        )

    def close(self) -> None:
        self._queue.clear()

    def _run(self, step: StepInput) -> tuple[I32, U8]:
        if step.bucket.kind is StepKind.VERIFY:
            return self._verify(step)
        size, bucket = self.capabilities.block_size, step.bucket
        last = self._last[step.slots][:, None]
        tokens = np.where(step.use_last == 1, last, step.token_ids)
        real = step.slot_mapping < self.capabilities.num_blocks * size
        if self.hooks.poison is not None and bool((tokens == self.hooks.poison)[real].any()):
            raise RuntimeError(f"device error: token {self.hooks.poison} was computed")
        self._write(step.slot_mapping.reshape(-1), tokens.reshape(-1))
        shown = np.take_along_axis(step.positions, step.logits_idx[:, None], axis=1)[:, 0] + 1
        shares = self._sums[step.block_tables] * self._shifts[: bucket.blocks]
        visible = np.arange(bucket.blocks) * size < shown[:, None]
        sums = np.where(visible, shares, np.uint64(0)).sum(axis=1, dtype=np.uint64)
        result = self._choose(step, _mix(sums, step.sampling[:, 0], step.draws))
        finite = np.ones(bucket.rows, dtype=np.uint8)
        if self.hooks.nan is not None:
            finite[((tokens == self.hooks.nan) & real).any(axis=1)] = 0
        self._last[np.where(step.sampled == 1, step.slots, self.capabilities.max_rows)] = result
        return result, finite

    def _verify(self, step: StepInput) -> tuple[I32, U8]:
        """One token after the other, as decode steps that keep nothing; then what is right is kept."""
        bucket = step.bucket
        lanes = [
            self._run(
                replace(
                    step,
                    bucket=replace(bucket, kind=StepKind.DECODE, width=1),
                    logits_idx=np.zeros_like(step.logits_idx),
                    sampled=np.zeros_like(step.sampled),
                    draws=step.draws[:, lane],
                    **{name: getattr(step, name)[:, lane : lane + 1] for name in _LANES},
                )
            )
            for lane in range(bucket.width)
        ]
        chosen = np.stack([tokens for tokens, _ in lanes], axis=1)
        finite: U8 = np.min([finite for _, finite in lanes], axis=0)
        right = accepted(chosen, step.token_ids[:, 1:], step.logits_idx.astype(np.intp))
        kept = np.where(step.sampled == 1, step.slots, self.capabilities.max_rows)
        self._last[kept] = chosen[np.arange(bucket.rows), right]
        return chosen, finite

    def _write(self, places: I32, tokens: I32) -> None:
        """Tokens to KV places; what lies behind the last of them in its block is stale."""
        size = self.capabilities.block_size
        self._kv.reshape(-1)[places] = tokens
        blocks, offsets = places // size, places % size
        filled = np.zeros(len(self._sums), dtype=np.int32)
        np.maximum.at(filled, blocks, offsets + 1)
        written = np.unique(blocks)
        terms = (self._kv[written].astype(np.uint64) + np.uint64(1)) * self._powers
        fresh = np.arange(size) < filled[written][:, None]
        self._sums[written] = np.where(fresh, terms, np.uint64(0)).sum(axis=1, dtype=np.uint64)

    def _logprobs(self, rows: int) -> Logprobs:
        """All tokens are equally likely, so the likeliest are the first ones."""
        count, each = self.capabilities.logprobs or 0, -math.log(self.capabilities.vocab_size)
        return Logprobs(
            chosen=np.full(rows, each, dtype=np.float32),
            ids=np.tile(np.arange(count, dtype=np.int32), (rows, 1)),
            values=np.full((rows, count), each, dtype=np.float32),
        )

    def _choose(self, step: StepInput, hashes: U64) -> I32:
        vocab_size = self.capabilities.vocab_size
        edits = (step.allowed, step.bias, step.repetition)
        tokens: I32 = (hashes % np.uint64(vocab_size)).astype(np.int32)
        if any(edit is not None for edit in edits):
            for row, number in enumerate(hashes.tolist()):
                allowed, bias, repetition = (None if edit is None else edit[row] for edit in edits)
                tokens[row] = _choice(number, vocab_size, allowed, bias, repetition)
        return tokens


def fake_buckets(caps: Capabilities) -> tuple[Bucket, ...]:
    """A small table with every kind of padding: several row counts, widths and table lengths."""
    most = -(-caps.max_model_len // caps.block_size)
    lengths = sorted({most, *(n for n in (1, 4, 16, 64, 256) if n < most)})
    row_counts = sorted({caps.max_rows, *(n for n in (1, 2, 4, 8, 16, 32, 64) if n < caps.max_rows)})
    prefill = [(1, 8), (1, 32), (1, 128), (2, 32), (4, 8), (4, 32)]
    return tuple(
        [Bucket(StepKind.DECODE, rows, 1, length) for rows in row_counts for length in lengths]
        + [Bucket(StepKind.PREFILL, rows, width, length) for rows, width in prefill for length in lengths]
        + [Bucket(StepKind.VERIFY, rows, 4, length) for rows in row_counts if rows <= 4 for length in lengths]
    )
