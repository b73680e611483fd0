"""Steps and answers of a Neuron backend, as the device suites run and time them."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from outcrop.backends.base import Backend, blank_step
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop_compile.artifact import Artifact
from outcrop_compile.bucket import Bucket

TOKENS = 24
STEPS = 20


def report(what: str, value: object) -> None:
    print(f"REPORT {what}: {value}")


def requests(backend: Backend, sampling: SamplingParams) -> list[GenerationRequest]:
    """Six prompts of different lengths, of tokens that every vocabulary has."""
    rng, caps = np.random.default_rng(1), backend.capabilities
    longest = min(100, caps.max_model_len - TOKENS)
    return [
        GenerationRequest(str(index), rng.integers(3, 200, size).tolist(), sampling)
        for index, size in enumerate(np.linspace(4, longest, 6).astype(int))
    ]


def answers(
    backend: Backend, wanted: list[GenerationRequest], *, together: bool = True
) -> dict[str, tuple[list[int], FinishReason]]:
    core, tokens = EngineCore(backend, Interleave(), prefix_cache=False), {r.request_id: [] for r in wanted}
    finish: dict[str, FinishReason] = {}
    for group in [wanted] if together else [[each] for each in wanted]:
        for request in group:
            core.add(request)
        while not core.idle:
            for delta in core.step():
                tokens[delta.request_id] += delta.tokens
                if delta.finish is not None:
                    finish[delta.request_id] = delta.finish
    report("compiles after warm-up", core.stats().compiles_after_warmup)
    assert core.stats().compiles_after_warmup == 0
    return {name: (tokens[name], finish[name]) for name in tokens}


def step_times(backend: Backend, bucket: Bucket, steps: int = STEPS) -> tuple[float, float]:
    """Median seconds of a step, two of which are submitted at a time, and of `submit`."""
    step = blank_step(bucket, backend.capabilities)
    times, submits, waiting = [], [], [backend.submit(step)]
    last = time.perf_counter()
    for _ in range(steps):
        begun = time.perf_counter()
        waiting.append(backend.submit(step))
        submits.append(time.perf_counter() - begun)
        backend.collect(waiting.pop(0))
        now = time.perf_counter()
        times.append(now - last)
        last = now
    backend.collect(waiting.pop())
    return statistics.median(times), statistics.median(submits)


def oracle(artifact: Artifact, checkpoint: Path, like: Backend) -> Backend:
    from outcrop.backends.cpu import CpuBackend
    from outcrop_compile.checkpoint import open_checkpoint
    from outcrop_compile.weights import load_weights
    from outcrop_kernels.cpu.native.library import available

    opened, caps = open_checkpoint(checkpoint), like.capabilities
    return CpuBackend(
        opened.config,
        load_weights(opened, dtype=artifact.manifest.shapes.dtype),
        kv_memory=1 << 30,
        max_model_len=caps.max_model_len,
        max_rows=caps.max_rows,
        block_size=caps.block_size,
        depth=1,
        threads=None,
        native=available(),
    )
