"""The CPU reference backend: the same model, scheduler and contract as on the chip.

With native kernels a step of each shape is recorded once and replayed after that, but for models that have a
matrix of no whole number of panels; without them, torch runs it in eager mode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from outcrop.backends import calibration
from outcrop.backends.base import (
    LOGPROBS,
    Capabilities,
    Logprobs,
    Progress,
    StepHandle,
    StepInput,
    StepOutput,
    blank_step,
)
from outcrop.backends.calibration import MOST_PREFILL, Calibration
from outcrop.backends.kv_memory import kv_capacity
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.llama import KVSizes, PagedLlama
from outcrop_compile.processors import usable_processors
from outcrop_compile.weights import Weight
from outcrop_kernels import reference
from outcrop_kernels.cpu.native.library import start
from outcrop_kernels.cpu.native.packed import in_panels, pack_weights, tensors
from outcrop_kernels.cpu.native.recording import Recorded
from outcrop_kernels.cpu.native.weight_memory import WeightMemory
from outcrop_kernels.quantised import Quantised
from outcrop_kernels.registry import operations

_Array = npt.NDArray[Any]

_VERIFY_TOKENS = 16
"""Tokens of the largest verify step: with more, it is no longer the reading of the weights that takes time,
and a wrong guess costs as much as a token."""


def cpu_buckets(max_rows: int, max_blocks: int, guesses: int = 0) -> tuple[Bucket, ...]:
    """A shape costs little and padding costs time, so the table is fine. guesses: tokens a row that a verify
    step has beside its last one; 0 for no verify steps."""
    lengths = [2**n for n in range(1, max_blocks.bit_length()) if 2**n < max_blocks] + [max_blocks]
    row_counts = sorted({*(n for n in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64) if n < max_rows), max_rows})
    # From 16 tokens on, a step's time is in proportion to them: prompts side by side would gain nothing, and
    # pad each other.
    prefill = [(1, width) for width in range(16, MOST_PREFILL + 1, 16)]
    prefill += [(rows, width) for rows in (2, 4, 8) if rows <= max_rows for width in (16, 32)]
    verify = [
        (rows, guesses + 1)
        for rows in row_counts
        if guesses and (rows == 1 or rows * (guesses + 1) <= _VERIFY_TOKENS)
    ]
    shapes = (
        [(StepKind.DECODE, rows, 1) for rows in row_counts]
        + [(StepKind.PREFILL, *shape) for shape in prefill]
        + [(StepKind.VERIFY, *shape) for shape in verify]
    )
    return tuple(Bucket(kind, rows, width, length) for kind, rows, width in shapes for length in lengths)


class CpuBackend:
    """Runs steps in order on one worker thread, which torch leaves free of the GIL most of the time, so
    the engine plans the next step meanwhile.

    weights: of `outcrop_compile.weights.load_weights`, adopted without a copy where torch runs the model; or
    what `pack` made of them, for the native kernels. native: whether to use those. threads: None for as many
    as warming up finds best. guesses: as in `cpu_buckets`. calibrated: the file that keeps what warming up
    finds for this model. Raises ValueError as `kv_capacity` does, and NativeUnavailable.
    """

    def __init__(
        self,
        config: LlamaConfig,
        weights: Mapping[str, Weight] | WeightMemory,
        *,
        kv_memory: int,
        max_model_len: int | None,
        max_rows: int,
        block_size: int,
        depth: int,
        threads: int | None,
        native: bool,
        guesses: int = 0,
        calibrated: Path | None = None,
    ) -> None:
        self._native, self._calibrated = native, calibrated
        self._thread_counts = (threads,) if threads else calibration.thread_counts()
        self.kernels = self._use_threads(threads or usable_processors())
        ops = operations("native" if native else "cpu")
        if native:
            memory = weights if isinstance(weights, WeightMemory) else pack(dict(weights))
            parameters, ops = tensors(memory), replace(ops, pack=_packed)
        else:
            assert not isinstance(weights, WeightMemory)
            # Torch multiplies with the numbers that quantised weights stand for.
            parameters = {name: reference.pack(_as_tensor(weight)) for name, weight in weights.items()}
        kv = kv_capacity(
            config,
            itemsize=parameters["embed"].element_size(),
            kv_memory=kv_memory,
            block_size=block_size,
            max_model_len=max_model_len,
        )
        self.capabilities = Capabilities(
            max_rows=max_rows,
            block_size=block_size,
            num_blocks=kv.num_blocks,
            max_model_len=kv.max_model_len,
            vocab_size=config.vocab_size,
            topk_cap=reference.TOPK_CAP,
            depth=depth,
            logprobs=LOGPROBS,
        )
        self.buckets = cpu_buckets(max_rows, -(-kv.max_model_len // block_size), guesses)
        self.dtype = parameters["embed"].dtype
        self.model = PagedLlama(
            config,
            parameters,
            KVSizes(kv.num_blocks, block_size, max_rows),
            ops,
            max_positions=kv.max_model_len,
        )
        self.recorded: Recorded | None = None
        if native and in_panels(parameters):
            self.model.compute = cast("Any", Recorded(self.model.compute))  # type: ignore[method-assign]
            self.recorded = Recorded(self.model)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cpu-backend")
        self._idle_since = time.perf_counter_ns()

    def warmup(self, progress: Progress) -> None:
        """One step of each kind: the first pass through torch's libraries is slow, and eager mode has
        nothing to compile for the other shapes. Then the number of threads is settled, and how long a prefill
        step may be: without those that take too long, there are fewer buckets afterwards."""
        chosen = list({bucket.kind: bucket for bucket in reversed(self.buckets)}.values())
        for index, bucket in enumerate(chosen):
            self._seconds(bucket)
            progress("warm-up", (index + 1) / (len(chosen) + 1))
        found = self._calibrate(calibration.recall(self._calibrated))
        calibration.remember(self._calibrated, found)
        self.buckets = tuple(
            bucket
            for bucket in self.buckets
            if bucket.kind is not StepKind.PREFILL or bucket.rows > 1 or bucket.width <= found.prefill_tokens
        )
        progress("warm-up", 1.0)

    def _calibrate(self, before: Calibration | None) -> Calibration:
        """before: what was found at earlier starts. It is only made better, since other programs may have
        been at work then, or are now."""
        if before is not None and before.threads not in self._thread_counts:
            before = None
        shortest = min(bucket.blocks for bucket in self.buckets)
        decode = [
            bucket
            for bucket in self.buckets
            if bucket.kind is StepKind.DECODE and bucket.rows in (1, 8) and bucket.blocks == shortest
        ]
        prefill = next(
            bucket
            for bucket in self.buckets
            if bucket.kind is StepKind.PREFILL and (bucket.rows, bucket.width) == (1, 32)
        )

        def decoding(threads: int) -> float:
            self._use_threads(threads)
            return sum(min(self._seconds(bucket) for _ in range(4)) for bucket in decode)

        threads = before.threads if before else calibration.best_threads(self._thread_counts, decoding)
        self._use_threads(threads)
        per_token = min(self._seconds(prefill) for _ in range(3)) / prefill.width
        limit = max(calibration.prefill_limit(per_token), before.prefill_tokens if before else 0)
        return Calibration(calibration.machine(), threads, limit)

    def _use_threads(self, threads: int) -> str:
        """Compute with so many from now on; returns with which kernels."""
        # Beside the native team, threads of torch's own would only be in the way.
        torch.set_num_threads(1 if self._native else threads)
        return start(threads) if self._native else "torch"

    def _seconds(self, bucket: Bucket) -> float:
        """What a step of padding takes."""
        return self.collect(self.submit(blank_step(bucket, self.capabilities))).device_us / 1e6

    def submit(self, step: StepInput) -> Future[StepOutput]:
        return self._worker.submit(self._run, step)

    def collect(self, handle: StepHandle) -> StepOutput:
        return cast("Future[StepOutput]", handle).result()

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _run(self, step: StepInput) -> StepOutput:
        begun = time.perf_counter_ns()
        idle = begun - self._idle_since
        if self.recorded is not None and step.plain:
            tokens, finite = self.recorded.arrays(*always(step))
            found, logprobs = (tokens.copy(), finite.astype(np.uint8)), None
        else:
            found, logprobs = self._run_in_torch(step)
        self._idle_since = time.perf_counter_ns()
        return StepOutput(
            step.step_id,
            *found,
            device_us=(self._idle_since - begun) // 1000,
            idle_us=idle // 1000,
            logprobs=logprobs,
        )

    def _run_in_torch(self, step: StepInput) -> tuple[tuple[_Array, _Array], Logprobs | None]:
        """The step's tokens and whether its rows are finite. Its edits, guesses and log probabilities are not
        of native operations; what comes before them is, and recorded."""
        with torch.inference_mode():
            tokens, finite, *told = self.model(
                *map(torch.from_numpy, always(step)),
                *(
                    None if edit is None else torch.from_numpy(edit)
                    for edit in (step.allowed, step.bias, step.repetition)
                ),
                likeliest=LOGPROBS if step.logprobs else None,
            )
            logprobs = Logprobs(*(each.numpy() for each in told)) if told else None
            return (tokens.numpy(), finite.to(torch.uint8).numpy()), logprobs


def always(step: StepInput) -> tuple[_Array, ...]:
    """The arguments of `PagedLlama.forward` that every step has."""
    return (
        step.token_ids,
        step.use_last,
        step.positions,
        step.slot_mapping,
        step.block_tables,
        step.logits_idx,
        step.sampled,
        step.slots,
        step.sampling,
        step.draws,
    )


def pack(weights: dict[str, Weight]) -> WeightMemory:
    """Weights in the form of the native kernels. Empties the dictionary, so that memory never holds both."""

    def one_by_one() -> Iterator[tuple[str, torch.Tensor | Quantised[torch.Tensor]]]:
        for name in list(weights):
            yield name, _as_tensor(weights.pop(name))

    return pack_weights(one_by_one())


def _packed(weight: torch.Tensor | Quantised[torch.Tensor]) -> torch.Tensor:
    """What the operation `pack` is for weights that are packed."""
    assert isinstance(weight, torch.Tensor)
    return weight


def _as_tensor(weight: Weight) -> torch.Tensor | Quantised[torch.Tensor]:
    """Adopt arrays; numpy has no bfloat16, so its bits arrive as uint16."""
    if isinstance(weight, Quantised):
        minimum = None if weight.minimum is None else torch.from_numpy(weight.minimum)
        return Quantised(torch.from_numpy(weight.codes), torch.from_numpy(weight.scale), minimum, weight.bits)
    if weight.dtype == np.uint16:
        return torch.from_numpy(weight.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(weight)
