"""Machines whose times can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

from outcrop.backends.base import Capabilities
from outcrop.simulate.machine import Machine, make_machine
from outcrop.simulate.serving import SERVINGS, Serving
from outcrop.simulate.step_time import Host, step_model
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan import PlanRequest
from outcrop_compile.shapes import SHAPES

MS = 1_000_000
CONFIG = SHAPES["Llama-3.1-8B"].config


def request(instance: str = "inf2.48xlarge", tp: int | None = 8, **changes: object) -> PlanRequest:
    return replace(PlanRequest("Llama-3.1-8B", CONFIG, INSTANCES[instance], tp=tp), **changes)


def tiny(
    serving: Serving = SERVINGS["interleave"],
    *,
    replicas: int = 1,
    rows: int = 2,
    blocks: int = 64,
    decode_ms: float = 10,
    prefill_ms: float = 20,
    depth: int = 2,
) -> Machine:
    """Blocks of 4 tokens, contexts of 64; prompts in steps of 8 tokens, 20 ms each; decode steps of 10 ms, 12
    beyond 32 tokens of context. The host takes 1 ms to schedule, 2 to apply, 4 where a step has to wait."""
    buckets = (
        *(Bucket(StepKind.DECODE, each, 1, 8) for each in (1, rows)),
        *(Bucket(StepKind.DECODE, each, 1, 16) for each in (1, rows)),
        Bucket(StepKind.PREFILL, 1, 8, 16),
    )
    times = {
        bucket: prefill_ms if bucket.kind is StepKind.PREFILL else decode_ms + 2 * (bucket.blocks > 8)
        for bucket in buckets
    }
    return replace(
        make_machine(request(), serving, step_model()),
        replicas=replicas,
        capabilities=Capabilities(
            max_rows=rows, block_size=4, num_blocks=blocks, max_model_len=64, vocab_size=1, topk_cap=1,
            depth=depth,
        ),
        buckets=tuple(dict.fromkeys(buckets)),
        durations={bucket: round(ms * MS) for bucket, ms in times.items()},
        host=Host(schedule=0.001, apply=0.002, exposed=0.004, request=0.0),
    )  # fmt: skip
