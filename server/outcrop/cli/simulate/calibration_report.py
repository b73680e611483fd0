"""How good the step times are, as people and programs read it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from outcrop.cli.simulate.console import wide_console
from outcrop.simulate.anchors import skipped
from outcrop.simulate.calibration import Calibration, Miss
from outcrop.simulate.served import Loop
from outcrop.simulate.step_time import parameters_data
from outcrop_compile.bucket import StepKind

_WORST = 5
_BAD = 0.25

_WHERE_WRONG = (
    "a prompt at tp32 and long contexts: Mistral-7B's 8,192 tokens take four times what is predicted, since "
    "nothing in the model grows that fast with the context",
    "many rows at 24 and 32 cores: too slow at tp32, too fast at tp24 with 8,192 tokens of context; how "
    "attention is divided there differs from one to the other, and the model has one price for both",
    "32 rows of 4,096 tokens at tp8: the older charts and the servers of 2025 and 2026 differ by more than "
    "any one model can follow; it lies between them",
    "one chip (inf2.xlarge, inf2.8xlarge, trn1.2xlarge): two decode measurements are known, and both take a "
    "fifth to a third longer than predicted",
    "closed loops of 128 users: their published rates and latencies say that 60 to 83 were there on average "
    "(Little's law), so the queue, and with it the time to first token, was shorter than simulated",
    "no published measurement is of Outcrop: other graphs, kernels and compilers are behind all of them",
)


def print_calibration(found: Calibration, loops: Sequence[Loop]) -> None:
    console = wide_console()
    console.print(_prices(found))
    console.print(_anchors(found))
    for miss in skipped():
        console.print(f"not compared: {miss.what} ({miss.ms} ms, {miss.source}): {miss.why}", style="dim")
    console.print()
    console.print(_summary(found))
    console.print("The worst of those held out:")
    for each in found.worst(_WORST):
        console.print(f"  {each.error:+.0%}  {each.anchor.name}: {_ms(each.ms)} for {_ms(each.anchor.ms)} ms")
    if loops:
        console.print()
        console.print(_served(loops))
        console.print(
            f"Median absolute error of output tokens a second: [bold]{_served_error(loops):.1%}[/bold]. "
            "Nothing is fitted to these."
        )
    console.print("\nWhere the model is wrong, and what that means:")
    for line in _WHERE_WRONG:
        console.print(f"  - {line}")


def _prices(found: Calibration) -> Table:
    table = Table("price", "fitted", "expected", "", box=box.SIMPLE, title="Prices of a step's work")
    entries = parameters_data()["prices"]
    for name, price in found.prices.items():
        entry = entries[name]
        table.add_row(name, f"{price:.3g}", f"{entry['expected']:.3g}", entry["meaning"])
    return table


def _anchors(found: Calibration) -> Table:
    table = Table(
        "measurement", "ms", "model", "error", "by others", "", box=box.SIMPLE,
        title="Published measurements. by others: predicted from other machines and models alone",
    )  # fmt: skip
    for column in table.columns[1:5]:
        column.justify = "right"
    for miss, other in zip(found.misses, found.family_misses, strict=True):
        error = f"{miss.error:+.0%}"
        table.add_row(
            miss.anchor.name,
            _ms(miss.anchor.ms),
            _ms(miss.ms),
            f"[red]{error}[/red]" if abs(miss.error) > _BAD else error,
            f"{other.error:+.0%}",
            "fitted" if miss.anchor.fitted else "held out",
        )
    return table


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _summary(found: Calibration) -> Table:
    table = Table("median absolute error", "held out", "fitted", "by others", box=box.SIMPLE)
    for name, kind in (("decode steps", StepKind.DECODE), ("prompts", StepKind.PREFILL), ("all", None)):
        table.add_row(
            name,
            f"[bold]{found.median_error(kind):.1%}[/bold]",
            f"{found.median_error(kind, held_out=False):.1%}",
            f"{_median(found.family_misses, kind):.1%}",
        )
    return table


def _median(misses: Sequence[Miss], kind: StepKind | None) -> float:
    return median(abs(miss.error) for miss in misses if kind in (None, miss.anchor.bucket.kind))


def _served_error(loops: Sequence[Loop]) -> float:
    return median(abs(loop.output_error) for loop in loops)


def _served(loops: Sequence[Loop]) -> Table:
    table = Table(
        "closed loop", "tokens/s", "simulated", "error", "TTFT", "error", "ITL", "error", box=box.SIMPLE,
        title="Published closed loops (1,500 tokens in, 250 out), simulated",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for loop in loops:
        anchor = loop.anchor
        table.add_row(
            f"{anchor.instance} {anchor.replicas} x tp{anchor.tp}, {anchor.users} users",
            f"{anchor.tokens_per_s:.0f}",
            f"{loop.figures.output_tokens_per_s:.0f}",
            f"{loop.output_error:+.0%}",
            f"{anchor.ttft_ms:,.0f}",
            f"{loop.ttft_error:+.0%}",
            f"{anchor.itl_ms:.1f}",
            f"{loop.itl_error:+.0%}",
        )
    return table


def calibration_as_json(found: Calibration, loops: Sequence[Loop]) -> dict[str, Any]:
    return {
        "prices": found.prices,
        "median_absolute_error": {
            name: {
                "held_out": found.median_error(kind),
                "fitted": found.median_error(kind, held_out=False),
                "by_others": _median(found.family_misses, kind),
            }
            for name, kind in (("decode", StepKind.DECODE), ("prefill", StepKind.PREFILL), ("all", None))
        },
        "anchors": [
            {
                "name": miss.anchor.name,
                "source": miss.anchor.source,
                "ms": miss.anchor.ms,
                "model_ms": miss.ms,
                "error": miss.error,
                "error_by_others": other.error,
                "fitted": miss.anchor.fitted,
            }
            for miss, other in zip(found.misses, found.family_misses, strict=True)
        ],
        "skipped": [{"what": each.what, "ms": each.ms, "why": each.why} for each in skipped()],
        "served": [
            {
                "source": loop.anchor.source,
                "users": loop.anchor.users,
                "output_tokens_per_s": loop.anchor.tokens_per_s,
                "simulated": loop.figures.output_tokens_per_s,
                "output_error": loop.output_error,
                "ttft_error": loop.ttft_error,
                "itl_error": loop.itl_error,
            }
            for loop in loops
        ],
        "where_wrong": list(_WHERE_WRONG),
    }
