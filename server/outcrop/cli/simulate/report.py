"""A simulation as people and programs read it."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from outcrop.cli.simulate.console import wide_console
from outcrop.simulate.figures import Figures
from outcrop.simulate.fleet import Run
from outcrop.simulate.slo import Slo
from outcrop.simulate.sweep import Candidate, Sweep

_NOTE = (
    "Step times are calculated, not measured (`outcrop simulate calibration` shows how far off they are "
    "where something was published)."
)
_SHOWN = 40
"""Rows of a sweep's table; --json has all."""


def print_run(run: Run, found: Figures, slo: Slo) -> None:
    console = wide_console()
    trace = run.lives.trace
    tokens_in, tokens_out = int(trace.prompt[run.lives.answered].sum()), int(run.lives.tokens.sum())
    console.print(f"[bold]{run.machine.plan.request.name}[/bold] on [bold]{run.machine.name}[/bold]")
    console.print(
        f"{found.requests:,} requests ({trace.name}), {tokens_in:,} tokens in, "
        f"{tokens_out:,} out, in {found.seconds:,.1f} s of virtual time"
    )
    for reason, count in trace.skipped:
        console.print(f"{count:,} rows of the trace were left out: {reason}")
    if found.refused:
        console.print(f"{found.refused:,} requests were refused: no context of this configuration holds them")
    console.print(_latencies(found))
    console.print(_rates(found))
    verdict = "[green]held[/green]" if found.holds_slo else "[red]not held[/red]"
    console.print(
        f"SLO ({slo}): {verdict}; {found.good_share:.2%} of the requests keep to it, "
        f"{found.goodput:.2f} a second"
    )
    console.print(_NOTE, style="dim")


def _latencies(found: Figures) -> Table:
    table = Table("milliseconds", "median", "p90", "p99", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, spread in (
        ("time to first token", found.ttft),
        ("  of it in the queue", found.queue),
        ("time per output token", found.tpot),
        ("longest gap between tokens", found.gap),
        ("whole request", found.latency),
    ):
        table.add_row(name, *(_ms(value) for value in (spread.p50, spread.p90, spread.p99)))
    return table


def _ms(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _rates(found: Figures) -> Table:
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = [
        ("requests a second", f"{found.requests_per_s:.2f}"),
        ("output tokens a second", f"{found.output_tokens_per_s:,.0f}"),
        ("input tokens a second", f"{found.input_tokens_per_s:,.0f}"),
        ("devices busy", f"{found.busy:.1%}"),
        ("KV cache used at most", f"{found.kv_peak:.1%}"),
        ("preemptions", f"{found.preemptions:,}"),
        ("steps: prefill / decode", f"{found.prefill_steps:,} / {found.decode_steps:,}"),
        ("of what they compute, padding", f"{found.prefill_padding:.1%} / {found.decode_padding:.1%}"),
    ]
    if found.per_million_output is not None and found.per_million_tokens is not None:
        rows += [
            ("instance, $ an hour", f"{found.dollars_per_hour:.4f}"),
            ("$ a million output tokens", f"{found.per_million_output:.3f}"),
            ("$ a million tokens, in and out", f"{found.per_million_tokens:.3f}"),
        ]
    for row in rows:
        table.add_row(*row)
    return table


def run_as_json(run: Run, found: Figures, slo: Slo) -> dict[str, Any]:
    """With the fields that `outcrop cost compare --from` reads."""
    trace, machine = run.lives.trace, run.machine
    answered = max(1, found.requests)
    return {
        "kind": "simulated",
        "model": machine.plan.request.name,
        "instance": machine.plan.request.instance.name,
        "tp": machine.plan.tp,
        "replicas": machine.replicas,
        "policy": machine.serving.name,
        "trace": trace.name,
        "skipped_rows": dict(trace.skipped),
        "slo": {"ttft_ms": slo.ttft, "tpot_ms": slo.tpot, "share": slo.share},
        "completed": found.requests,
        "errors": found.refused,
        "mean_input_tokens": int(trace.prompt[run.lives.answered].sum()) / answered,
        "mean_output_tokens": int(run.lives.tokens.sum()) / answered,
        "output_tokens_per_s": found.output_tokens_per_s,
        "figures": found.as_json(),
    }


def print_sweep(found: Sweep, slo: Slo) -> None:
    console = wide_console()
    frontier = found.frontier()
    table = Table(
        "instances x configuration", "SLO", "kept", "TTFT p99", "TPOT p50", "TPOT p99", "$/hour",
        "$/1M tokens", "frontier", box=box.SIMPLE,
    )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    ordered = sorted(found.candidates, key=lambda each: (not each.figures.holds_slo, each.dollars_per_hour))
    for each in ordered[:_SHOWN]:
        style = "bold" if each is found.best else ""
        table.add_row(*_row(each), "*" if each in frontier else "", style=style)
    console.print(f"SLO: {slo}")
    console.print(table)
    if len(ordered) > _SHOWN:
        console.print(f"{len(ordered) - _SHOWN} more are in --json")
    for refused in found.refused:
        console.print(f"left out: {refused.name}: {refused.why}", style="dim")
    if (best := found.best) is not None:
        console.print(
            f"The cheapest that holds it: [bold]{best.name}[/bold], ${best.dollars_per_hour:.4f} an hour, "
            f"${best.per_million_tokens:.3f} a million tokens under this load"
        )
    elif found.candidates:
        console.print(
            "None of them holds it. --most-instances allows more of a kind; so would a weaker --slo."
        )
    console.print(_NOTE, style="dim")


def _row(each: Candidate) -> tuple[str, ...]:
    figures = each.figures
    return (
        each.name,
        "held" if figures.holds_slo else "-",
        f"{figures.good_share:.1%}",
        _ms(figures.ttft.p99),
        _ms(figures.tpot.p50),
        _ms(figures.tpot.p99),
        f"{each.dollars_per_hour:.3f}",
        f"{each.per_million_tokens:.3f}",
    )


def sweep_as_json(found: Sweep, slo: Slo) -> dict[str, Any]:
    frontier = found.frontier()
    return {
        "kind": "simulated",
        "slo": {"ttft_ms": slo.ttft, "tpot_ms": slo.tpot, "share": slo.share},
        "best": None if found.best is None else found.best.name,
        "candidates": [
            {
                "name": each.name,
                "instance": each.machine.plan.request.instance.name,
                "instances": each.instances,
                "tp": each.machine.plan.tp,
                "replicas": each.machine.replicas,
                "dtype": each.machine.plan.request.dtype,
                "batch": each.machine.plan.request.batch,
                "chunk": each.chunk,
                "policy": each.machine.serving.name,
                "dollars_per_hour": each.dollars_per_hour,
                "per_million_tokens": each.per_million_tokens,
                "frontier": each in frontier,
                "figures_of_one_instance": each.figures.as_json(),
            }
            for each in found.candidates
        ],
        "refused": [{"name": each.name, "why": each.why} for each in found.refused],
    }
