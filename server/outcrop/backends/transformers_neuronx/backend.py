"""Outcrop's engine on transformers-neuronx, for hosts that cannot leave it yet. Not yet run on a device."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from outcrop.backends.base import (
    I32,
    LOGPROBS,
    U8,
    Capabilities,
    DeviceFailure,
    Logprobs,
    Progress,
    StepHandle,
    StepInput,
    StepOutput,
)
from outcrop.backends.neuron.cores import VISIBLE_CORES, format_cores, parse_cores
from outcrop.backends.neuron.nrt import drain_of, status_of
from outcrop.backends.transformers_neuronx.model import InputMetadata, LlamaModel, Model, Sizes
from outcrop.engine.config import EngineConfig
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_kernels.reference import TOPK_CAP, candidates, edit_logits, log_probabilities, sample

logger = logging.getLogger(__name__)

END_OF_LIFE = (
    "transformers-neuronx reached its end of support with Neuron SDK 2.26 and gets no fixes; move to backend "
    "neuron (outcrop compile build), or to vllm"
)
_TOKENS = (16, 128, 512, 2048)
_LENGTH = 4096
_AMP = {"auto": "bf16", "bfloat16": "bf16", "float32": "f32"}


def open_backend(config: EngineConfig) -> tuple[TransformersNeuronxBackend, str]:
    """The backend of a config and a line that describes it. Loading compiles what the compile cache lacks.
    Raises ValueError and OSError with a message meant for the operator."""
    logger.warning(END_OF_LIFE)
    if config.cores is None:
        raise ValueError("cores: give NeuronCores such as 0-7; the model is shared by as many")
    if config.dtype not in _AMP:
        raise ValueError(f"dtype {config.dtype}: transformers-neuronx has bfloat16 and float32 here")
    cores = parse_cores(config.cores)
    model = open_checkpoint(Path(config.model)).config
    wanted = config.max_model_len or min(model.context, _LENGTH)
    if wanted > model.context:
        raise ValueError(f"max_model_len {wanted} is beyond the model's context of {model.context} tokens")
    sizes = sizes_of(config.max_rows, wanted, config.block_size)
    os.environ.setdefault(VISIBLE_CORES, format_cores(cores))
    loaded = LlamaModel(config.model, sizes, amp=_AMP[config.dtype], tp=len(cores))
    backend = TransformersNeuronxBackend(loaded, sizes, vocab_size=model.vocab_size)
    return backend, (
        f"transformers-neuronx (end of support) on NeuronCores {format_cores(cores)}, "
        f"{sizes.length} tokens of context, {sizes.rows} requests at once"
    )


def sizes_of(rows: int, length: int, block_size: int) -> Sizes:
    """length: at most so many tokens; whole blocks are used. Raises ValueError."""
    length -= length % block_size
    if length <= block_size:
        raise ValueError(f"block_size {block_size}: paged attention wants at least two in the context")
    tokens = tuple(count for count in _TOKENS if count <= length) or (length,)
    if rows > tokens[-1]:
        raise ValueError(f"max_rows {rows}: with {length} tokens of context there are at most {tokens[-1]}")
    # The package wants room for every row at full length (LlamaForSampling.__init__).
    return Sizes(rows, length, block_size, rows * (length // block_size) + 1, tokens)


@dataclass(slots=True, eq=False)
class _Handle:
    output: StepOutput | None = None


class TransformersNeuronxBackend:
    """A Backend. A step is run as it is submitted, one at a time, and its tokens are sampled on the host.

    What a step's padding would write goes nowhere: the rows' tokens are put end to end without it. The
    package itself pads them to the size of a graph, with slot 0; so its block 0 is kept free, and the
    engine's block b is its block b + 1.
    """

    def __init__(self, model: Model, sizes: Sizes, *, vocab_size: int) -> None:
        self._model, self._sizes = model, sizes
        blocks = sizes.length // sizes.block_size
        self.capabilities = Capabilities(
            max_rows=sizes.rows,
            block_size=sizes.block_size,
            num_blocks=sizes.blocks - 1,
            max_model_len=sizes.length,
            vocab_size=vocab_size,
            topk_cap=TOPK_CAP,
            depth=1,
            logprobs=LOGPROBS,
        )
        self.buckets = (
            Bucket(StepKind.DECODE, sizes.rows, 1, blocks),
            *(Bucket(StepKind.PREFILL, 1, width, blocks) for width in sizes.tokens),
        )
        self._last = np.zeros(sizes.rows + 1, dtype=np.int32)
        self._finished = time.perf_counter()

    def warmup(self, progress: Progress) -> None:
        """Run every graph once: the first execution of each is slow."""
        for index, count in enumerate(self._sizes.tokens):
            positions = np.arange(count, dtype=np.int32)
            tables = np.zeros((1, count // self._sizes.block_size + 1), dtype=np.int32)
            tables = tables[:, : self._sizes.length // self._sizes.block_size]
            zeros = np.zeros(count, dtype=np.int32)
            self._run(zeros, positions, zeros, tables, np.zeros(1, np.int32), np.array([count], np.int32))
            progress("warm-up", (index + 1) / len(self._sizes.tokens))

    def submit(self, step: StepInput) -> StepHandle:
        started = time.perf_counter()
        tokens, finite, told = self._step(step)
        idle, self._finished = started - self._finished, time.perf_counter()
        return _Handle(
            StepOutput(
                step.step_id,
                tokens,
                finite,
                device_us=int((self._finished - started) * 1e6),
                idle_us=int(idle * 1e6),
                logprobs=told,
            )
        )

    def collect(self, handle: StepHandle) -> StepOutput:
        assert isinstance(handle, _Handle)
        output, handle.output = handle.output, None
        if output is None:
            raise RuntimeError("a step is collected once")
        return output

    def close(self) -> None:
        """The package gives the cores back when its process ends."""

    def _step(self, step: StepInput) -> tuple[I32, U8, Logprobs | None]:
        size, sink = self._sizes.block_size, self.capabilities.num_blocks
        real = np.flatnonzero(step.context_lens)
        given = np.where(step.use_last == 1, self._last[step.slots][:, None], step.token_ids)
        kept = step.slot_mapping[real] != sink * size
        counts = kept.sum(axis=1, dtype=np.int32)
        logits = self._run(
            given[real][kept],
            step.positions[real][kept],
            step.slot_mapping[real][kept] + size,
            np.where(step.block_tables[real] == sink, 0, step.block_tables[real] + 1),
            step.context_lens[real] - counts,
            step.context_lens[real],
        )
        edits = (_rows(array, real) for array in (step.allowed, step.bias, step.repetition))
        edited = edit_logits(logits, *edits)
        chosen = sample(edited, torch.from_numpy(step.sampling[real]), torch.from_numpy(step.draws[real]))
        rows = step.bucket.rows
        tokens, finite = np.zeros(rows, dtype=np.int32), np.ones(rows, dtype=np.uint8)
        tokens[real] = chosen.numpy()
        finite[real] = torch.isfinite(logits).all(dim=-1).numpy()
        keep = step.sampled == 1
        self._last[step.slots[keep]] = tokens[keep]
        return tokens, finite, _told(logits, chosen, real, rows) if step.logprobs else None

    def _run(self, tokens: I32, positions: I32, slots: I32, tables: I32, before: I32, after: I32) -> Tensor:
        """Logits [S, V] of the model. Raises DeviceFailure."""
        metadata = InputMetadata(*map(torch.from_numpy, (tables, before, after)))
        try:
            with torch.inference_mode():
                logits = self._model.logits(
                    torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(slots), metadata
                )
        except RuntimeError as error:
            status = status_of(error)
            raise DeviceFailure(f"{status} ({error})", code=status.code, drain=drain_of(status)) from error
        return logits[: len(after)]


def _rows(array: npt.NDArray[Any] | None, real: npt.NDArray[np.intp]) -> Tensor | None:
    return None if array is None else torch.from_numpy(array[real])


def _told(logits: Tensor, chosen: Tensor, real: npt.NDArray[np.intp], rows: int) -> Logprobs:
    """Of the rows that are no padding, from the model's unedited logits."""
    own, ids, values = log_probabilities(logits, chosen, candidates(logits, LOGPROBS))
    shape = (rows, LOGPROBS)
    found = Logprobs(np.zeros(rows, np.float32), np.zeros(shape, np.int32), np.zeros(shape, np.float32))
    found.chosen[real] = own.numpy()
    found.ids[real] = ids.numpy()
    found.values[real] = values.numpy()
    return found
