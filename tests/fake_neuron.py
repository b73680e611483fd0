"""A stand-in for the Neuron runtime: the graphs of an artifact, run on the CPU as the chip would run them.

It is as strict as the chip where that can be known: names, order, shapes and dtypes of inputs are those of
the graph, every index is in bounds, a step runs while the host does something else, and what goes wrong is
said with the runtime's own codes in torch-neuronx's words.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from outcrop.backends.neuron.nrt import STATUSES
from outcrop.backends.neuron.runtime import CompilationForbidden, Outputs
from outcrop_compile.artifact import CompiledBucket, Manifest
from outcrop_compile.artifact.kernels import built_with
from outcrop_compile.llama import KVSizes, PagedLlama
from outcrop_compile.meeting import Meeting
from outcrop_kernels.cpu.native.library import start
from outcrop_kernels.cpu.native.packed import tensors
from outcrop_kernels.cpu.native.recording import Recorded
from outcrop_kernels.cpu.native.weight_memory import WeightMemory
from outcrop_kernels.quantised import SCALE, Quantised
from outcrop_kernels.registry import operations

QUEUE = 63
"""Executions that the runtime holds."""


class NrtError(RuntimeError):
    """In the words of torch-neuronx."""

    def __init__(self, code: int, message: str = "") -> None:
        name = STATUSES[code].name if code in STATUSES else "?"
        super().__init__(f"Failed to execute the model status={code} message={message or name}")


@dataclass(slots=True)
class Fault:
    """An execution that goes wrong with this code. at: which of those that sample, counted from 1. when:
    as it is queued, or as its outputs are read. lost: its outputs cannot be read at all."""

    code: int
    at: int = 1
    when: Literal["execute", "wait"] = "wait"
    lost: bool = False


@dataclass
class Faults:
    """Those to come, in order, and how many executions that sample there were."""

    coming: deque[Fault] = field(default_factory=deque)
    count: int = 0

    def of(self, inputs: Mapping[str, Tensor]) -> Fault | None:
        """The one of this execution."""
        if not int(inputs["sampled"].sum()):
            return None
        self.count += 1
        if self.coming and self.coming[0].at <= self.count:
            self.count = 0
            return self.coming.popleft()
        return None


class CpuDevice:
    """The cores of one replica with an artifact loaded. weights: of each rank, in torch's types; or packed
    for the CPU backend's kernels, of the one rank."""

    def __init__(
        self, manifest: Manifest, weights: Sequence[Mapping[str, Tensor | Quantised[Tensor]]] | WeightMemory
    ) -> None:
        self.manifest = manifest
        self.graphs = {each.tag: each for each in manifest.buckets}
        self.faults = Faults()
        self.calls: list[str] = []
        self.outstanding = self.most_outstanding = 0
        native = isinstance(weights, WeightMemory)
        if isinstance(weights, WeightMemory):
            start(len(os.sched_getaffinity(0)))
            weights, ops = [tensors(weights)], replace(operations("native"), pack=lambda weight: weight)
        else:
            kernels, gather = built_with(manifest.kernels)
            ops = operations("neuron", kernels, gather=gather)
        world, shapes = len(weights), manifest.shapes
        meeting = Meeting(world)
        self.models = [
            PagedLlama(
                manifest.model.config,
                weights[rank],
                KVSizes(shapes.num_blocks, shapes.block_size, shapes.max_rows),
                ops,
                max_positions=shapes.max_model_len,
                parallel=meeting.parallel(rank) if world > 1 else None,
            )
            for rank in range(world)
        ]
        if native:
            self.models[0].compute = Recorded(self.models[0].compute)
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="fake-neuron")
        self._ranks = ThreadPoolExecutor(world, thread_name_prefix="fake-neuron-core")
        self._lock = threading.Lock()

    def execute(self, tag: str, inputs: Mapping[str, Tensor]) -> FakeExecution:
        self.calls.append(tag)
        if tag not in self.graphs:
            raise NrtError(3)
        fault = self.faults.of(inputs)
        if fault is not None and fault.when == "execute":
            raise NrtError(fault.code)
        if self.outstanding >= QUEUE:
            raise NrtError(7)
        self._check_static(self.graphs[tag], inputs)
        with self._lock:
            self.outstanding += 1
            self.most_outstanding = max(self.most_outstanding, self.outstanding)
        return FakeExecution(self._queue.submit(self._run, inputs, fault), fault)

    def close(self) -> None:
        self._queue.shutdown(wait=True, cancel_futures=True)
        self._ranks.shutdown(wait=True)

    def _run(self, inputs: Mapping[str, Tensor], fault: Fault | None) -> Outputs:
        try:
            self._check_bounds(inputs)
            if fault is not None and fault.code != 1003:
                raise NrtError(fault.code)
            ranks = [self._ranks.submit(_forward, model, inputs) for model in self.models]
            outputs = [rank.result() for rank in ranks]
            for each in outputs[1:]:  # one program, so one answer
                assert all(torch.equal(a, b) for a, b in zip(each, outputs[0], strict=True))
            return tuple(output.numpy().copy() for output in outputs[0])  # a replay's are its next ones too
        finally:
            with self._lock:
                self.outstanding -= 1

    def _check_static(self, graph: CompiledBucket, inputs: Mapping[str, Tensor]) -> None:
        """What a graph was compiled for is what it takes."""
        given = [
            (name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in inputs.items()
        ]
        wanted = [(spec.name, spec.shape, spec.dtype) for spec in graph.inputs]
        if given != wanted:
            raise NrtError(1002, f"{graph.tag} takes {wanted}, not {given}")
        for name, tensor in inputs.items():
            if tensor.device.type != "cpu" or not tensor.is_contiguous():
                raise NrtError(1002, f"{name} is not contiguous host memory")

    def _check_bounds(self, inputs: Mapping[str, Tensor]) -> None:
        """No index may be out of bounds: the chip's gather and scatter do not look."""
        shapes = self.manifest.shapes
        width = inputs["token_ids"].shape[1]
        limits = {
            "token_ids": self.manifest.model.config.vocab_size,
            "use_last": 2,
            "positions": shapes.max_model_len,
            "slot_mapping": (shapes.num_blocks + 1) * shapes.block_size,
            "block_tables": shapes.num_blocks + 1,
            "logits_idx": width,
            "sampled": 2,
            "slots": shapes.max_rows + 1,
        }
        for name, limit in limits.items():
            low, high = int(inputs[name].min()), int(inputs[name].max())
            if low < 0 or high >= limit:
                raise NrtError(1006, f"{name} holds {low} to {high}, beyond 0 to {limit - 1}")


class FakeExecution:
    def __init__(self, running: Future[Outputs], fault: Fault | None) -> None:
        self._running, self._fault = running, fault
        self._told = False

    def wait(self) -> Outputs:
        """As the chip does, it says that there was NaN before it gives out what there is."""
        outputs = self._running.result()
        found_nan = not outputs[1].all() or (self._fault is not None and self._fault.code == 1003)
        if found_nan and (not self._told or (self._fault is not None and self._fault.lost)):
            self._told = True
            raise NrtError(1003, "Numerical Error")
        return outputs


class FakeRuntime:
    """`outcrop.backends.neuron.runtime.Runtime` over a CpuDevice."""

    def __init__(self, device: CpuDevice) -> None:
        self.device = device
        self.compilations = 0
        self.sealed = self.closed = False
        self.compile_at: int | None = None
        """The execution, counted from 0, that would compile something."""

    def execute(self, tag: str, inputs: Mapping[str, Tensor]) -> FakeExecution:
        if self.closed:
            raise NrtError(14)
        if self.sealed and len(self.device.calls) == self.compile_at:
            self.compile_at = None
            self.compilations += 1
            raise CompilationForbidden("something was to be compiled after warm-up")
        return self.device.execute(tag, inputs)

    def forbid_compilation(self) -> None:
        self.sealed = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.device.close()


def _forward(model: PagedLlama, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        tokens, finite = model(**inputs)
    return tokens, finite


def read_shard(path: Path) -> dict[str, Tensor | Quantised[Tensor]]:
    """A rank's file, under the names that the model's constructor has for what it calls its buffers."""
    return parameters(load_file(path))


def parameters(buffers: Mapping[str, Tensor]) -> dict[str, Tensor | Quantised[Tensor]]:
    found: dict[str, Tensor | Quantised[Tensor]] = {}
    for name, tensor in buffers.items():
        if name not in ("cos", "sin") and not name.endswith(SCALE):
            scale = buffers.get(name + SCALE)
            renamed = "lm_head" if name == "head" else name
            found[renamed] = tensor if scale is None else Quantised(tensor, scale, None, 8)
    return found


def as_tensor(array: np.ndarray) -> Tensor:
    """A parameter as `load_weights` has it."""
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
