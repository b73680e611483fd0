"""The Neuron backend: an artifact's graphs on the NeuronCores of one replica. Not yet run on a device.

Above it is the engine's contract (`outcrop.backends.base`), below it `Runtime`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from outcrop.backends.base import (
    I32,
    Capabilities,
    DeviceFailure,
    Progress,
    StepHandle,
    StepInput,
    StepOutput,
    blank_step,
)
from outcrop.backends.neuron.graphs import Graphs
from outcrop.backends.neuron.nrt import Effect, drain_of, status_of
from outcrop.backends.neuron.runtime import CompilationForbidden, Execution, Outputs, Runtime
from outcrop_compile.artifact import ArtifactMismatch, CompiledBucket, Manifest

logger = logging.getLogger(__name__)

_RETRIES = 200
_RETRY_SECONDS = 0.01
"""A step that the runtime does not take is offered again for so many times and as often, then the runtime is
taken for broken."""

_FAILED_STEPS = 3
"""Steps in a row that do not run: the engine's state is at fault, not a request."""


@dataclass(slots=True, eq=False)
class _Handle:
    """A submitted step. execution: None while the runtime has not taken it. error: why it never will.
    idle_from: when the device ran out of work before it, or 0."""

    step: StepInput
    graph: CompiledBucket
    execution: Execution | None = None
    error: Exception | None = None
    started: float = 0.0
    idle_from: float = 0.0


class NeuronBackend:
    """Steps run on the device in the order of submission; `submit` only queues them.

    What a failed step leads to is in the table of `outcrop.backends.neuron.nrt`. uncorrectable: how many
    uncorrectable memory errors the devices have counted (`devices.uncorrectable_errors`): if that rises, an
    error that would restart the engine drains the machine instead. Raises ArtifactMismatch.
    """

    def __init__(
        self,
        runtime: Runtime,
        manifest: Manifest,
        *,
        depth: int,
        max_model_len: int | None = None,
        uncorrectable: Callable[[], int] = lambda: 0,
    ) -> None:
        shapes = manifest.shapes
        if max_model_len is not None and max_model_len > shapes.max_model_len:
            mend = manifest.build_command(max_model_len=max_model_len)
            raise ArtifactMismatch(
                "shapes.max_model_len", shapes.max_model_len, f"at least {max_model_len}", mend
            )
        self.capabilities = Capabilities(
            max_rows=shapes.max_rows,
            block_size=shapes.block_size,
            num_blocks=shapes.num_blocks,
            max_model_len=max_model_len or shapes.max_model_len,
            vocab_size=manifest.model.config.vocab_size,
            topk_cap=shapes.topk_cap,
            depth=depth,
        )
        self._graphs = Graphs(manifest)
        self._mend = manifest.build_command()
        self.buckets = self._graphs.buckets
        self.runtime = runtime
        self._uncorrectable = uncorrectable
        self._errors_before = uncorrectable()
        self._queue: deque[_Handle] = deque()
        self._warm: set[str] | None = None
        self._compiles = self._booked_compiles = 0
        self._failed_in_a_row = 0
        self._finished = 0.0

    def warmup(self, progress: Progress) -> None:
        """Run every graph once, since the first execution of each is slow, and let no other run after that.
        Raises ArtifactMismatch where outputs are not what the manifest says, and DeviceFailure where a graph
        does not run."""
        graphs = list(self._graphs)
        warm: set[str] = set()
        for index, graph in enumerate(graphs):
            handle = _Handle(blank_step(graph.bucket, self.capabilities), graph)
            self._start(handle)
            try:
                outputs = self._outputs(handle)
            except RuntimeError as error:
                status = status_of(error)
                reason = f"graph {graph.tag} does not run: {status} ({error})"
                raise DeviceFailure(reason, code=status.code, drain=drain_of(status)) from error
            for spec, output in zip(graph.outputs, outputs, strict=True):
                if output.shape != spec.shape:
                    raise ArtifactMismatch(
                        f"buckets.{graph.tag}.outputs.{spec.name}", spec.shape, output.shape, self._mend
                    )
            warm.add(graph.tag)
            progress("warm-up", (index + 1) / len(graphs))
        self._warm = warm
        self.runtime.forbid_compilation()

    def submit(self, step: StepInput) -> _Handle:
        if len(self._queue) >= self.capabilities.depth:
            raise RuntimeError(
                f"{len(self._queue)} steps are submitted; the depth is {self.capabilities.depth}"
            )
        handle = _Handle(step, self._graphs.choose(step), idle_from=0.0 if self._queue else self._finished)
        self._queue.append(handle)
        self._start_waiting()
        return handle

    def collect(self, handle: StepHandle) -> StepOutput:
        if not self._queue or self._queue[0] is not handle:
            raise RuntimeError("steps must be collected once each, in the order of submission")
        submitted = self._queue[0]
        try:
            tokens, finite = self._outputs(submitted)
            self._failed_in_a_row = 0
        except RuntimeError as error:
            tokens, finite = self._failed(submitted, error)
        self._queue.popleft()
        self._start_waiting()
        return self._booked(submitted, tokens, finite)

    def close(self) -> None:
        self._queue.clear()
        self.runtime.close()

    def _start_waiting(self) -> None:
        """Offer the runtime what it has not taken yet, in order."""
        for handle in self._queue:
            if handle.execution is None and handle.error is None:
                self._start(handle)
                if handle.execution is None and handle.error is None:
                    return

    def _start(self, handle: _Handle) -> None:
        """Give a step to the runtime, if it takes it."""
        tag = handle.graph.tag
        if self._warm is not None and tag not in self._warm:
            self._compiles += 1
            handle.error = CompilationForbidden(f"graph {tag} was not warmed up")
            return
        arrays = self._graphs.inputs(handle.graph, handle.step)
        inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
        handle.started = time.perf_counter()
        try:
            handle.execution = self.runtime.execute(tag, inputs)
        except RuntimeError as error:
            if status_of(error).effect is not Effect.RETRY:
                handle.error = error

    def _outputs(self, handle: _Handle) -> Outputs:
        """Wait for the step that is first in line. Raises what it raised."""
        for _ in range(_RETRIES):
            if handle.error is not None:
                raise handle.error
            if handle.execution is not None:
                try:
                    return handle.execution.wait()
                except RuntimeError as error:
                    # Once a later step is out, running this one again would be out of order.
                    if status_of(error).effect is not Effect.RETRY or len(self._queue) > 1:
                        raise
                    handle.execution = None
            time.sleep(_RETRY_SECONDS)
            self._start(handle)
        raise DeviceFailure(
            f"the runtime has taken no step for {_RETRIES * _RETRY_SECONDS:.0f} s", code=7, drain="never"
        )

    def _failed(self, handle: _Handle, error: RuntimeError) -> Outputs:
        """What is left of a step that failed. Raises DeviceFailure where the device's state is unknown."""
        if isinstance(error, DeviceFailure):
            raise error
        where = f"step {handle.step.step_id}, graph {handle.graph.tag}"
        if isinstance(error, CompilationForbidden):
            logger.error("%s: %s; its requests fail", where, error)
            return _no_outputs(handle.step)
        status = status_of(error)
        logger.error("%s: %s (%s)", where, status, error)
        if status.effect is Effect.FAIL_ROWS:
            return self._despite_nan(handle)
        if status.effect is Effect.FAIL_STEP:
            self._failed_in_a_row += 1
            if self._failed_in_a_row < _FAILED_STEPS:
                return _no_outputs(handle.step)
        broken = self._uncorrectable() > self._errors_before
        drain = "now" if broken else drain_of(status)
        raise DeviceFailure(f"{status} ({error})", code=status.code, drain=drain) from error

    def _despite_nan(self, handle: _Handle) -> Outputs:
        """The outputs of a step that the runtime found NaN in: it ran to its end, and they say which rows are
        concerned. Where they cannot be had, all are."""
        if handle.execution is not None:
            with contextlib.suppress(RuntimeError):
                return handle.execution.wait()
        return _no_outputs(handle.step)

    def _booked(self, handle: _Handle, tokens: I32, finite: I32) -> StepOutput:
        """Times are as the host sees them: the runtime tells of none."""
        now = time.perf_counter()
        begun = max(handle.started, self._finished)
        idle = max(0.0, handle.started - handle.idle_from) if handle.started and handle.idle_from else 0.0
        busy = now - begun if handle.started else 0.0
        self._finished = now
        compiles = self._compiles + self.runtime.compilations
        news, self._booked_compiles = compiles - self._booked_compiles, compiles
        return StepOutput(
            handle.step.step_id,
            tokens,
            finite.astype(np.uint8),
            device_us=int(busy * 1e6),
            idle_us=int(idle * 1e6),
            compiles=news,
        )


def _no_outputs(step: StepInput) -> Outputs:
    """Of a step that did not run: every row fails."""
    return np.zeros(step.draws.shape, dtype=np.int32), np.zeros(step.bucket.rows, dtype=np.int32)
