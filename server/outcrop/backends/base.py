"""The contract between the engine and whatever runs the model.

A step is a rectangle: `rows` requests, `width` tokens of each. Prefill is wide and short, decode is one
token wide, a verify step of speculation lies between; one forward pass serves all three. All integers
are int32 (the chip has no others) and every array is already padded to the step's bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from outcrop.engine.frames import Drain
from outcrop.engine.messages import TokenLogprobs
from outcrop_compile.bucket import Bucket, StepKind

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of it that is done."""

LOGPROBS = 20
"""Likeliest tokens that a client may ask for: as many as OpenAI's API lets it."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can hold. max_rows: requests running at once. num_blocks: KV blocks, without the
    sink (its id is num_blocks). topk_cap: candidates that sampling considers. depth: steps that may be
    submitted before the first of them is collected. logprobs: how many likeliest tokens a step can tell
    beside the one it chose; None where it tells no log probabilities at all."""

    max_rows: int
    block_size: int
    num_blocks: int
    max_model_len: int
    vocab_size: int
    topk_cap: int
    depth: int
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class StepInput:
    """One step. R = bucket.rows, Q = bucket.width, NB = bucket.blocks.

    A verify step has in each row the last token and after it guesses at those that follow (see
    `engine/speculation.py`). It samples after every token, and what it keeps in last_token is the token after
    the last guess that is right, up to the first that is wrong. It edits no logits.

    Padded lanes carry position 0, the sink's slot and, where a whole row is padding, context_lens 0 and
    the sink slot of the token table; nothing ever reads what they write.

    Steps may share arrays, so a backend writes to none. Entries of block_tables beyond a row's
    context_lens may turn from the sink into another valid block while the step is out.
    """

    step_id: int
    bucket: Bucket
    token_ids: I32  # [R, Q] read where use_last is 0
    use_last: I32  # [R, Q] 1: take last_token[slots[row]], the token the device sampled for this row
    positions: I32  # [R, Q] of each token in its sequence
    slot_mapping: I32  # [R, Q] where its KV goes: block * block_size + offset
    block_tables: I32  # [R, NB] the row's blocks in order, padded with the sink
    context_lens: I32  # [R] tokens visible, this step's included; 0 for a padding row
    logits_idx: I32  # [R] which of the row's Q tokens to sample from; in a verify step, the row's guesses
    sampled: I32  # [R] 1: sample a token and keep it in last_token[slots[row]]
    slots: I32  # [R] the row's place in the device's token table
    sampling: F32  # [R, 4] temperature (0 is greedy), top_k (0 is the cap), top_p, min_p
    draws: F32  # [R] uniform in [0, 1) for this row's token; [R, Q] in a verify step
    # Edits of the logits before sampling, as `outcrop_kernels.reference.edit_logits` defines them. None
    # where no row of the step has any: the plain graph, which is what most steps run.
    allowed: I32 | None = None  # [R, ceil(V / 32)] bit mask of the tokens that may be sampled
    bias: F32 | None = None  # [R, V] added to the logits
    repetition: F32 | None = None  # [R, V] divides positive logits, multiplies the others
    logprobs: bool = False  # whether to tell log probabilities; never in a verify step

    @property
    def plain(self) -> bool:
        """Whether it chooses a token for each row and no more: no guesses, edits or log probabilities."""
        edited = self.allowed is not None or self.bias is not None or self.repetition is not None
        return not edited and not self.logprobs and self.bucket.kind is not StepKind.VERIFY


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log probabilities of a step's tokens, of the logits as they were before any edit. chosen: [R] of the
    token that was sampled. ids, values: [R, C] the likeliest tokens and theirs, falling."""

    chosen: F32
    ids: I32
    values: F32

    def of(self, row: int, count: int) -> TokenLogprobs:
        """Those of one row, with so many of its likeliest tokens."""
        ids, values = self.ids[row, :count].tolist(), self.values[row, :count].tolist()
        return TokenLogprobs(float(self.chosen[row]), list(zip(ids, values, strict=True)))


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step produced. tokens: [R] sampled ids, meaningful where `sampled` was 1; in a verify step
    [R, Q], the one sampled after each of the row's tokens as if those were right. finite: [R] 0 where
    the row's activations held NaN or Inf, or the device could not run it: its request ends with an error.
    device_us: microseconds the step ran. idle_us: microseconds the device had nothing to run before it.
    compiles: compilations that the step set off, which is an error after warm-up. logprobs: where the step
    was to tell them."""

    step_id: int
    tokens: I32
    finite: U8
    device_us: int
    idle_us: int = 0
    compiles: int = 0
    logprobs: Logprobs | None = None


class DeviceFailure(RuntimeError):
    """A step failed and the device's state is unknown, so the engine process must end. code: what the device
    calls it. drain: whether another process may be started for it."""

    def __init__(self, reason: str, *, code: int, drain: Drain) -> None:
        super().__init__(reason)
        self.code, self.drain = code, drain


StepHandle = object
"""A submitted step; opaque to the engine."""


class Backend(Protocol):
    """Steps run strictly in the order of submission. Not thread-safe: one engine owns one backend."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def buckets(self) -> tuple[Bucket, ...]: ...

    def warmup(self, progress: Progress) -> None:
        """Make every bucket ready to run; afterwards a compilation is an error."""

    def submit(self, step: StepInput) -> StepHandle:
        """Queue a step; never waits for the device. At most `capabilities.depth` may be outstanding."""

    def collect(self, handle: StepHandle) -> StepOutput:
        """Wait for a step. Called exactly once per submit, in order. Raises what the step raised: the
        device's state is unknown then, and the engine process must end."""

    def close(self) -> None:
        """Release the device. Idempotent."""


def blank_step(bucket: Bucket, caps: Capabilities) -> StepInput:
    """A step of padding only: it reads and writes the sink. For warming up."""
    lanes, rows = (bucket.rows, bucket.width), bucket.rows
    return StepInput(
        step_id=0,
        bucket=bucket,
        token_ids=np.zeros(lanes, dtype=np.int32),
        use_last=np.zeros(lanes, dtype=np.int32),
        positions=np.zeros(lanes, dtype=np.int32),
        slot_mapping=np.full(lanes, caps.num_blocks * caps.block_size, dtype=np.int32),
        block_tables=np.full((rows, bucket.blocks), caps.num_blocks, dtype=np.int32),
        context_lens=np.zeros(rows, dtype=np.int32),
        logits_idx=np.zeros(rows, dtype=np.int32),
        sampled=np.zeros(rows, dtype=np.int32),
        slots=np.full(rows, caps.max_rows, dtype=np.int32),
        sampling=np.zeros((rows, 4), dtype=np.float32),
        draws=np.zeros(lanes if bucket.kind is StepKind.VERIFY else rows, dtype=np.float32),
    )
