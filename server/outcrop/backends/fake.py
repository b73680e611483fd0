"""A deterministic model without weights, for tests, load generators and simulation.

It keeps a real paged KV pool, of token ids: a row's next token is a hash of every token its block table
shows, so a wrong block, slot, position or stale block changes the answer, as it would in a real model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from outcrop.backends.base import (
    F32,
    I32,
    Bucket,
    Capabilities,
    Progress,
    StepHandle,
    StepInput,
    StepKind,
    StepOutput,
)

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
    tokens = np.asarray(context, dtype=np.int32)[None, :]
    lengths = np.array([len(context)], dtype=np.int32)
    sampling = np.array([temperature], dtype=np.float32)
    (number,) = _hashes(tokens, lengths, sampling, np.array([draw], dtype=np.float32))
    return _choice(int(number), vocab_size, allowed, bias, repetition)


def _hashes(contexts: I32, lengths: I32, temperatures: F32, draws: F32) -> npt.NDArray[np.uint64]:
    span = contexts.shape[1]
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(span, _BASE, dtype=np.uint64))
        visible = np.arange(span)[None, :] < lengths[:, None]
        terms = np.where(visible, (contexts.astype(np.uint64) + np.uint64(1)) * powers[None, :], np.uint64(0))
        hashes = terms.sum(axis=1, dtype=np.uint64) * _MIX
        noise = np.where(temperatures > 0, (draws * np.float32(2**24)).astype(np.uint64), np.uint64(0))
        hashes = (hashes ^ (hashes >> np.uint64(29))) + noise * _MIX
        mixed: npt.NDArray[np.uint64] = hashes ^ (hashes >> np.uint64(32))
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
    ready_at: float


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
        self._kv = np.zeros((caps.num_blocks + 1) * caps.block_size, dtype=np.int32)
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
        ready_at = 0.0
        if self.hooks.step_seconds is not None:
            self._busy_until = max(self._busy_until, self.clock()) + self.hooks.step_seconds(step)
            ready_at = self._busy_until
        handle = _Handle(step, ready_at)
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
        return self._run(submitted.step)

    def close(self) -> None:
        self._queue.clear()

    def _run(self, step: StepInput) -> StepOutput:
        size, bucket = self.capabilities.block_size, step.bucket
        last = self._last[step.slots][:, None]
        tokens = np.where(step.use_last == 1, last, step.token_ids)
        real = step.slot_mapping < self.capabilities.num_blocks * size
        if self.hooks.poison is not None and bool((tokens == self.hooks.poison)[real].any()):
            raise RuntimeError(f"device error: token {self.hooks.poison} was computed")
        self._kv[step.slot_mapping.reshape(-1)] = tokens.reshape(-1)
        spread = (step.block_tables[:, :, None] * size + np.arange(size, dtype=np.int32)).reshape(
            bucket.rows, -1
        )
        contexts = self._kv[spread]
        shown = np.take_along_axis(step.positions, step.logits_idx[:, None], axis=1)[:, 0] + 1
        hashes = _hashes(contexts, shown, step.sampling[:, 0], step.draws)
        result = self._choose(step, hashes)
        finite = np.ones(bucket.rows, dtype=np.uint8)
        if self.hooks.nan is not None:
            finite[((tokens == self.hooks.nan) & real).any(axis=1)] = 0
        self._last[np.where(step.sampled == 1, step.slots, self.capabilities.max_rows)] = result
        return StepOutput(step.step_id, result, finite, device_us=0)

    def _choose(self, step: StepInput, hashes: npt.NDArray[np.uint64]) -> I32:
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
    )
