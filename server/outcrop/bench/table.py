"""Figures on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from outcrop.bench.figures import Figures, Spread

LATENCIES = (
    ("TTFT", "ttft_ms"),
    ("TPOT", "tpot_ms"),
    ("ITL", "itl_ms"),
    ("E2E", "e2e_ms"),
    ("delay", "delay_ms"),
)

LATE_MS = 10.0
"""A client that sends its requests later than this measures itself."""


def print_figures(record: dict[str, Any], found: Figures) -> None:
    console = Console(highlight=False)
    console.print(f"{record['protocol']}, {record['model']} at {record['url']}: {record['load']}")
    console.print(
        f"{found.completed} of {found.completed + found.errors} answered in {found.seconds:.1f} s; "
        f"offered {found.offered_per_s:.2f}, answered {found.requests_per_s:.2f} requests/s; "
        f"{found.mean_input_tokens:.0f} -> {found.mean_output_tokens:.0f} tokens"
    )
    console.print(
        f"{found.output_tokens_per_s:.1f} output tokens/s, {found.input_tokens_per_s:.1f} input tokens/s"
    )
    if found.goodput_per_s is not None and found.good_share is not None:
        console.print(
            f"Goodput: {found.goodput_per_s:.2f} requests/s, {found.good_share:.1%} of all kept to the SLO"
        )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("ms")
    for name in ("mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    for name, field in LATENCIES:
        spread: Spread = getattr(found, field)
        row = (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99, spread.max)
        table.add_row(name, *(f"{value:,.1f}" for value in row))
    console.print(table)
    for problem in problems(found):
        console.print(f"[yellow]Mind:[/] {problem}")


def problems(found: Figures) -> list[str]:
    """What a reader has to know before relying on the figures."""
    said = [f"{count} requests failed: {kind}" for kind, count in found.errors_by_kind.items()]
    if found.delay_ms.p99 > LATE_MS:
        said.append(
            f"requests were sent up to {found.delay_ms.p99:.0f} ms late (p99): the client, or its machine, "
            "is too slow for this load, and the latencies are partly its own"
        )
    return said
