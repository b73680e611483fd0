"""What is simulated: a model on an instance, its buckets, and how long each step takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.backends.base import Capabilities
from outcrop.simulate.serving import Serving
from outcrop.simulate.step_time import Host, StepModel
from outcrop.simulate.trace import NS
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.plan import Plan, PlanRequest, make_plan


@dataclass(frozen=True, slots=True)
class Machine:
    """One replica, of which there are `replicas`. durations: nanoseconds of a step, by bucket. depth: steps
    submitted before the first of them is collected."""

    plan: Plan
    serving: Serving
    replicas: int
    capabilities: Capabilities
    buckets: tuple[Bucket, ...]
    durations: dict[Bucket, int]
    host: Host

    @property
    def name(self) -> str:
        request = self.plan.request
        return (
            f"{request.instance.name}, {self.replicas} x tp{self.plan.tp}, {self.serving.name}, "
            f"{request.batch} rows"
        )


def make_machine(
    request: PlanRequest,
    serving: Serving,
    model: StepModel,
    *,
    replicas: int | None = None,
    buckets: Sequence[Bucket] | None = None,
    chunk: int | None = None,
    depth: int = 2,
) -> Machine:
    """replicas: as many as the instance has cores for, by default. buckets: those of the plan, by default.
    chunk: tokens of the widest prefill step, for shorter stalls between tokens of answers. Raises
    PlanRefused, ValueError."""
    plan = make_plan(request)
    room = plan.replicas
    if replicas is not None and not 1 <= replicas <= room:
        raise ValueError(
            f"--replicas {replicas}: {request.instance.name} has cores for 1 to {room} of {plan.tp} cores"
        )
    kept = serving.buckets(tuple(buckets or (each.bucket for each in plan.buckets)))
    if chunk is not None:
        kept = _no_wider(kept, chunk)
    kept = tuple(each for each in kept if each.kind is not StepKind.VERIFY)
    rows = request.batch
    if not serving.preempts:
        rows = max(1, min(rows, plan.kv_tokens // request.length))
    return Machine(
        plan=plan,
        serving=serving,
        replicas=replicas or room,
        capabilities=Capabilities(
            max_rows=rows,
            block_size=request.block,
            num_blocks=plan.num_blocks,
            max_model_len=request.length,
            vocab_size=1,
            topk_cap=1,
            depth=depth,
        ),
        buckets=kept,
        durations={
            each: round(NS * model.seconds(plan.layout, each, request.block, request.dtype, request.instance))
            for each in kept
        },
        host=model.host,
    )


def _no_wider(buckets: tuple[Bucket, ...], chunk: int) -> tuple[Bucket, ...]:
    kept = tuple(each for each in buckets if each.kind is not StepKind.PREFILL or each.width <= chunk)
    if not any(each.kind is StepKind.PREFILL for each in kept):
        widths = sorted({each.width for each in buckets if each.kind is StepKind.PREFILL})
        raise ValueError(f"--chunk {chunk}: the narrowest prefill step has {widths[0]} tokens")
    return kept
