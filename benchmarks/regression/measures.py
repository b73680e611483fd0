"""What the guard watches: each measure is a time over the time that something of the same kind, which no
change here can make slower or faster, takes on this machine at this moment."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from benchmarks.peers.bound import bound
from benchmarks.peers.limits import Limits, Probe
from benchmarks.peers.models import DEMO
from benchmarks.peers.workloads import Workload

from outcrop.backends.base import (
    Backend,
    Capabilities,
    Progress,
    StepHandle,
    StepInput,
    StepOutput,
)
from outcrop.backends.cpu import CpuBackend
from outcrop.engine.config import EngineConfig
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop.engine.process import build_backend
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.config import LlamaConfig

_DECODED = 16
_CONTEXT = 64
_PROMPT = 512
_LOOPS = 20_000


class HostOnly:
    """A backend that takes no time: every token is 1."""

    def __init__(self, rows: int) -> None:
        self.capabilities = Capabilities(
            max_rows=rows,
            block_size=32,
            num_blocks=rows * 16,
            max_model_len=512,
            vocab_size=32000,
            topk_cap=256,
            depth=2,
        )
        self.buckets: tuple[Bucket, ...] = (
            Bucket(StepKind.DECODE, rows, 1, 16),
            Bucket(StepKind.PREFILL, 1, 512, 16),
        )

    def warmup(self, progress: Progress) -> None:
        pass

    def submit(self, step: StepInput) -> StepHandle:
        return step

    def collect(self, handle: StepHandle) -> StepOutput:
        assert isinstance(handle, StepInput)
        rows = handle.bucket.rows
        return StepOutput(handle.step_id, np.ones(rows, np.int32), np.ones(rows, np.uint8), 0)

    def close(self) -> None:
        pass


class Engine:
    """An engine in this process, with requests of random tokens."""

    def __init__(self, backend: Backend, vocab_size: int) -> None:
        self._core = EngineCore(backend, Interleave(), prefix_cache=False)
        self._vocab_size, self._random, self._count = vocab_size, random.Random(1), 0

    def prefill(self, tokens: int) -> float:
        """Seconds from a prompt to the first token of its answer."""
        self._add(tokens, 1)
        begun = time.perf_counter()
        self._run()
        return time.perf_counter() - begun

    def decode(self, rows: int, context: int, steps: int) -> float:
        """Seconds of a step with every row in it: the median."""
        for _ in range(rows):
            self._add(context, steps + rows)  # those that came first decode while the others come
        seconds = []
        while not self._core.idle:
            begun = time.perf_counter()
            deltas = self._core.step()
            if len(deltas) == rows:
                seconds.append(time.perf_counter() - begun)
        return statistics.median(seconds)

    def _add(self, prompt: int, max_tokens: int) -> None:
        self._count += 1
        tokens = [self._random.randrange(self._vocab_size) for _ in range(prompt)]
        self._core.add(GenerationRequest(str(self._count), tokens, SamplingParams(max_tokens)))

    def _run(self) -> None:
        while not self._core.idle:
            self._core.step()


class Measures:
    """Every measure by its name; calling one takes it once, and gives the ratio."""

    def __init__(self, config: LlamaConfig, engine: Engine) -> None:
        self._config, self._engine, self._probe = config, engine, Probe()

    def all(self) -> dict[str, Callable[[], float]]:
        return {
            **{f"decode step, {rows} rows": partial(self._decode, rows) for rows in (1, 8, 32)},
            f"prefill of {_PROMPT}": self._prefill,
            **{f"host path, {rows} rows": partial(_host, rows) for rows in (64, 256)},
        }

    def _decode(self, rows: int) -> float:
        taken = self._engine.decode(rows, _CONTEXT, _DECODED)
        workload = Workload("", "", "", (_CONTEXT,) * rows, _DECODED)
        return taken / (bound(workload, self._config, "bf16", self._limits()).decode / (_DECODED - 1))

    def _prefill(self) -> float:
        taken = self._engine.prefill(_PROMPT)
        return (
            taken / bound(Workload("", "", "", (_PROMPT,), 1), self._config, "bf16", self._limits()).prefill
        )

    def _limits(self) -> Limits:
        return Limits(self._probe.bandwidth(3), self._probe.fma(3), 0.0, 0.0)


def _host(rows: int) -> float:
    """Planning and applying a step of `rows` rows, over a loop of Python."""
    taken = Engine(HostOnly(rows), 32000).decode(rows, 16, 64)
    begun = time.perf_counter()
    counts: dict[int, int] = {}
    for number in range(_LOOPS):
        counts[number % 97] = counts.get(number % 97, 0) + 1
    return taken / (time.perf_counter() - begun)


@contextmanager
def measures() -> Iterator[tuple[str, Measures]]:
    """The demo model in bfloat16 with the native kernels; and their instruction set. Raises
    NativeUnavailable."""
    config = EngineConfig(str(DEMO), dtype="bfloat16", kernels="native", max_model_len=1024)
    backend, _ = build_backend(config, lambda event: None)
    model = open_checkpoint(DEMO).config
    try:
        backend.warmup(lambda stage, share: None)
        assert isinstance(backend, CpuBackend)
        yield backend.kernels, Measures(model, Engine(backend, model.vocab_size))
    finally:
        backend.close()
