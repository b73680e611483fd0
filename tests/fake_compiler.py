"""A stand-in for the one module that touches the Neuron compiler: it runs what it is to trace, so that shapes
and names are true, and writes files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hlo_builder import Builder
from torch import Tensor, nn

from outcrop_compile.builder.compiler import Traced
from outcrop_compile.hlo.module import HloModule
from outcrop_compile.llama import TensorParallel
from outcrop_compile.sdk import RELEASES


class FakeCompiler:
    """failures: what compiling a tag raises, once each. sdk: the release it claims to be. bad: whether its
    graphs have what no chip can do."""

    def __init__(
        self, failures: Mapping[str, Sequence[BaseException]] | None = None, sdk: str = "2.31.1"
    ) -> None:
        self.failures = {tag: list(errors) for tag, errors in (failures or {}).items()}
        self.versions = dict(RELEASES[sdk].python)
        self.compiled: list[tuple[str, tuple[str, ...]]] = []
        self.traced: list[str] = []
        self.bad = False
        self.extra_weights: frozenset[str] = frozenset()
        self.unread: tuple[str, ...] = ()
        self.running = self.most = 0
        self.hold: threading.Barrier | None = None
        self._lock = threading.Lock()

    def packages(self) -> Mapping[str, str]:
        return self.versions

    @contextmanager
    def parallel(self, world: int) -> Iterator[TensorParallel]:
        yield TensorParallel(
            0, world, lambda tensor: tensor * world, lambda tensor: torch.cat([tensor] * world, dim=-1)
        )

    def trace(self, model: nn.Module, inputs: Mapping[str, Tensor], tag: str) -> Traced:
        before = {name: id(buffer) for name, buffer in model.named_buffers()}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # models this small are only slowed by more
        with torch.inference_mode():
            outputs = model(**inputs)
        torch.set_num_threads(threads)
        replaced = [name for name, buffer in model.named_buffers() if id(buffer) != before[name]]
        seen = {
            "tag": tag,
            "inputs": {name: [list(each.shape), str(each.dtype)] for name, each in inputs.items()},
            "outputs": [[list(each.shape), str(each.dtype)] for each in outputs],
            "weights": {name: [list(each.shape), str(each.dtype)] for name, each in model.named_parameters()},
            "states": replaced,
        }
        self.traced.append(tag)
        names = frozenset(name for name, _ in model.named_parameters()) | self.extra_weights
        return Traced(
            tag, self.hlo(json.dumps(seen)), f"metaneff of {tag}".encode(), names, self.unread, seen
        )

    def hlo(self, name: str) -> bytes:
        """A module of nothing but its name, and an instruction that no chip has where that is asked for."""
        builder = Builder(name)
        results = [builder.op("sort", [builder.parameter("f32", 4)], "f32", 4)] if self.bad else []
        return builder.dump(*results)

    def compile(self, traced: Traced, flags: Sequence[str], folder: Path) -> Path:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if self.hold is not None:
                self.hold.wait()
            work = folder / traced.tag / "2026-08-12T10-00-00"
            work.mkdir(parents=True)
            errors = self.failures.get(traced.tag)
            if errors:
                (work / "log-neuron-cc.txt").write_text("INFO: lowering\n")
                raise errors.pop(0)
            neff = work / "graph.neff"
            neff.write_bytes(b"NEFF of " + traced.hlo)
            with self._lock:
                self.compiled.append((traced.tag, tuple(flags)))
            return neff
        finally:
            with self._lock:
                self.running -= 1


def described(hlo: bytes) -> Any:
    """What `FakeCompiler.trace` saw."""
    return json.loads(HloModule(hlo).name)


def wrapped(words: str) -> RuntimeError:
    """An error as `compile` of neuronx_distributed raises it: what the compiler said is its cause."""
    try:
        try:
            raise RuntimeError(words)
        except RuntimeError as error:
            raise RuntimeError("Compilation failed for some graph") from error
    except RuntimeError as error:
        return error
