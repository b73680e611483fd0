"""Published measurements that the model of step times is held against: `data/anchors.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from outcrop.simulate.step_time import Work, work_of
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.instances import INSTANCES, Instance
from outcrop_compile.plan.request import Dtype
from outcrop_compile.shapes import find_shape
from outcrop_compile.tensor_parallel import Layout, divide


@dataclass(frozen=True, slots=True)
class Anchor:
    """One measurement. bucket: in blocks of one token, so that `blocks` is the graph's context; ms: a time
    per output token, or, for prefill, a time to first token, which `executions` steps and the request's own
    overhead make up. fitted: whether parameters may be fitted to it; the others are held out."""

    model: str
    instance: Instance
    layout: Layout
    dtype: Dtype
    bucket: Bucket
    executions: int
    ms: float
    source: str
    fitted: bool

    @property
    def work(self) -> Work:
        """All that `ms` was spent on."""
        once = work_of(self.layout, self.bucket, 1, self.dtype, self.instance.link_bandwidth)
        work = {name: amount * self.executions for name, amount in once.items()}
        if self.bucket.kind is StepKind.PREFILL:
            work["request"] = 1.0
        return work

    @property
    def name(self) -> str:
        bucket = self.bucket
        shape = f"{bucket.rows} x {bucket.width}" if bucket.kind is StepKind.PREFILL else f"{bucket.rows}"
        dtype = "int8" if self.dtype == "int8" else "bf16"
        return (
            f"{self.model} {dtype}, {self.instance.name} tp{self.layout.world}, {bucket.kind} {shape} "
            f"in {bucket.blocks}"
        )

    @property
    def family(self) -> str:
        """Measurements of one machine, model and publisher, which resemble each other."""
        return f"{self.model} {self.instance.name} tp{self.layout.world} {self.source.split()[0]}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A measurement that the model cannot be held against, and why."""

    what: str
    ms: str
    source: str
    why: str


@dataclass(frozen=True, slots=True)
class Served:
    """A closed loop that was measured: `users` requests at a time. tp: cores of a replica, which decodes
    `rows` requests in one graph and computes prompts in chunks of `chunk` tokens."""

    model: str
    instance: str
    tp: int
    replicas: int
    rows: int
    chunk: int
    context: int
    users: int
    rps: float
    ttft_ms: float
    itl_ms: float
    tokens_per_s: float
    source: str


def anchors() -> tuple[Anchor, ...]:
    """In the order of the file. Every other one, of decode steps and of prompts each, is fitted to; which one
    is nobody's choice."""
    found, seen = [], {StepKind.DECODE: 0, StepKind.PREFILL: 0}
    for entry in _data()["anchors"]:
        kind = StepKind(entry["kind"])
        found.append(
            Anchor(
                model=entry["model"],
                instance=INSTANCES[entry["instance"]],
                layout=divide(_config(entry["model"]), entry["tp"]),
                dtype=entry["dtype"],
                bucket=Bucket(kind, entry["rows"], entry["width"], entry["span"]),
                executions=entry.get("executions", 1),
                ms=entry["ms"],
                source=entry["source"],
                fitted=seen[kind] % 2 == 0,
            )
        )
        seen[kind] += 1
    return tuple(found)


def skipped() -> tuple[Skipped, ...]:
    return tuple(Skipped(**entry) for entry in _data()["skipped"])


def served() -> tuple[Served, ...]:
    return tuple(Served(**entry) for entry in _data()["served"])


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((files("outcrop.simulate") / "data" / "anchors.json").read_text())
    return loaded


def _config(model: str) -> LlamaConfig:
    """Of a Llama 3 by name, or one of the other models that were measured."""
    if (shape := find_shape(model)) is not None:
        return shape.config
    vocab, hidden, intermediate, layers, heads, kv_heads, head_dim = _data()["model_sizes"][model]
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        context=32_768,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        rope_scaling=None,
        tie_embeddings=False,
    )
