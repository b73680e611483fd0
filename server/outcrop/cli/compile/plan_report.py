"""A plan as people and programs read it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from outcrop_compile.bucket import StepKind
from outcrop_compile.instances import HBM_PER_CORE
from outcrop_compile.plan import Plan, PlannedBucket, PlanRefused

_GIB = 1 << 30


def print_plan(plan: Plan) -> None:
    console = Console(highlight=False)
    request, instance = plan.request, plan.request.instance
    replicas = f"{plan.replicas} replicas" if plan.replicas > 1 else "one replica"
    console.print(
        f"[bold]{request.name}[/bold] in {request.dtype} on [bold]{instance.name}[/bold]: "
        f"{replicas} of {plan.tp} core{'s' * (plan.tp > 1)}"
    )
    console.print(_memory(plan))
    console.print(
        f"KV cache of a replica: [bold]{plan.kv_tokens:,} tokens[/bold] in {plan.num_blocks:,} "
        f"{'slots' if request.slots else 'blocks'} of {request.block:,}; "
        f"{plan.kv_tokens / request.length:.1f} sequences of {request.length:,}; "
        f"up to {request.batch} requests side by side"
    )
    for kind in StepKind:
        buckets = [each for each in plan.buckets if each.bucket.kind is kind]
        if buckets:
            console.print(_steps(kind, buckets))
    console.print(
        "Milliseconds a step: by HBM bandwidth (the roofline) / by DMA bandwidth, with padding and "
        "collectives. Calculated, not measured: nothing has yet run on a device.",
        style="dim",
    )
    for note in _notes(plan):
        console.print(note)


def _memory(plan: Plan) -> Table:
    memory = plan.memory
    estimated = plan.request.reserve is None
    table = Table("HBM of a core", "GiB", "")
    table.columns[1].justify = "right"
    padding = f"{plan.padding:.1%} more for padding and copied heads" if plan.padding > 5e-4 else ""
    graphs = f"of {plan.graphs} graphs, estimated" if estimated else "in the reserve"
    rows = [
        ("weights", memory.weights, padding),
        ("KV cache", memory.kv, f"{plan.kv_bytes_per_token:,} bytes a token"),
        ("activations", memory.activations, "of the largest step"),
        ("code and rings", memory.graphs, graphs),
        ("runtime", memory.runtime, "estimated" if estimated else "the reserve"),
        ("free", memory.free, "less than a block"),
    ]
    for name, size, note in rows:
        table.add_row(name, f"{size / _GIB:.2f}", note)
    table.add_section()
    table.add_row("in all", f"{HBM_PER_CORE / _GIB:.2f}", "")
    return table


_SIZES = {StepKind.DECODE: "rows", StepKind.PREFILL: "tokens", StepKind.VERIFY: "rows x tokens"}


def _steps(kind: StepKind, buckets: list[PlannedBucket]) -> Table:
    """Sizes down, contexts across."""
    contexts = sorted({each.context for each in buckets})
    title = f"{kind} steps by context"
    table = Table(_SIZES[kind], *(f"{context:,}" for context in contexts), title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    rows: dict[str, dict[int, str]] = {}
    for each in buckets:
        size = {
            StepKind.DECODE: f"{each.bucket.rows}",
            StepKind.PREFILL: f"{each.bucket.width:,}",
            StepKind.VERIFY: f"{each.bucket.rows} x {each.bucket.width}",
        }[kind]
        rows.setdefault(size, {})[each.context] = f"{_ms(each.time.hbm)}/{_ms(each.time.expected)}"
    for size, cells in rows.items():
        table.add_row(size, *(cells.get(context, "") for context in contexts))
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.{0 if seconds >= 0.1 else 1}f}"


def _notes(plan: Plan) -> list[str]:
    build, instance = plan.build, plan.request.instance
    where = "so build on a larger machine (any x86 one; no Neuron device is needed)"
    if build.workers:
        where = f"enough for {build.workers} compilation{'s' * (build.workers > 1)} at a time"
    notes = [
        f"Build: {plan.graphs} graphs, on a host with {build.least / _GIB:.0f} GiB of memory (estimated); "
        f"this instance has {instance.host_gib}, {where}."
    ]
    idle = instance.cores - plan.replicas * plan.tp
    if idle:
        notes.append(f"{idle} of {instance.cores} cores stay idle.")
    return notes


def print_refusal(refusal: PlanRefused) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"outcrop: {refusal.reason}", style="red", soft_wrap=True, markup=False)
    if not refusal.suggestions:
        console.print("None of the instances that Outcrop knows has room for it.")
        return
    console.print("What would fit:")
    for suggestion in refusal.suggestions:
        console.print(f"  {suggestion.changes}")


def plan_as_json(plan: Plan) -> str:
    """Sizes in bytes, times in seconds."""
    request = plan.request
    return json.dumps(
        {
            "model": request.name,
            "config": asdict(request.config),
            "instance": asdict(request.instance) | {"cores": request.instance.cores},
            "dtype": request.dtype,
            "tp": plan.tp,
            "replicas": plan.replicas,
            "max_model_len": request.length,
            "batch": request.batch,
            "speculative_tokens": request.guesses,
            "slots": request.slots,
            "kv": {
                "tokens": plan.kv_tokens,
                "num_blocks": plan.num_blocks,
                "block_size": request.block,
                "bytes_per_token_and_core": plan.kv_bytes_per_token,
            },
            "hbm_per_core": asdict(plan.memory) | {"total": HBM_PER_CORE},
            "padding": plan.padding,
            "graphs": plan.graphs,
            "buckets": [_bucket(each) for each in plan.buckets],
            "build": asdict(plan.build) | {"least": plan.build.least},
        },
        indent=2,
    )


def _bucket(planned: PlannedBucket) -> dict[str, Any]:
    return asdict(planned.bucket) | {"context": planned.context, "seconds": asdict(planned.time)}


def refusal_as_json(refusal: PlanRefused) -> str:
    return json.dumps(
        {
            "refused": refusal.reason,
            "limit": refusal.limit,
            "suggestions": [suggestion.changes for suggestion in refusal.suggestions],
        },
        indent=2,
    )
