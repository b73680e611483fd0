"""A comparison on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from outcrop.cost.compare import RATIOS, UTILISATIONS, Comparison, Rate


def print_comparison(comparison: Comparison, console: Console) -> None:
    """What the two ways cost, and what that depends on."""
    _print_question(comparison, console)
    console.print(_main_table(comparison))
    console.print()
    console.print(_ratio_table(comparison))
    if comparison.throughput is not None:
        console.print()
        console.print(_utilisation_table(comparison))
    console.print()
    if (energy := comparison.energy) is not None:
        console.print(
            f"Energy, an estimate: {energy.kwh_per_million:.2f} kWh for a million output tokens, "
            f"{energy.watts:.0f} W an instance. Assumed: {energy.assumption}."
        )
    for source in dict.fromkeys(
        (comparison.quote.source, *(each.quote.source for each in comparison.against))
    ):
        console.print(f"Prices of {source.date}: {source.name}, {source.url}")
    console.print("List prices, without tax, storage, load balancers and data transfer (see --overhead).")
    for warning in comparison.warnings:
        console.print(f"[yellow]Mind:[/] {warning}")


def _print_question(comparison: Comparison, console: Console) -> None:
    question, load = comparison.question, comparison.question.load
    price = comparison.quote.price
    console.print(
        f"{question.model} on {question.instance}, {question.option}, {price.region}: "
        f"${comparison.hourly:.4f} an hour"
        + (f", {question.overhead:.0%} overhead included" if question.overhead else "")
    )
    rate = f"{load.rps:.3g} requests a second of " if load.rps else "requests of "
    console.print(f"Load: {rate}{load.input_tokens:.0f} input and {load.output_tokens:.0f} output tokens")
    if (found := comparison.throughput) is None:
        console.print("Throughput: not known (--from), so only what is independent of it is told")
    else:
        console.print(
            f"Throughput ({found.kind}): {found.output_tokens_per_s:.0f} output tokens a second and instance. "
            f"{found.source}"
        )
    if comparison.instances is not None:
        console.print(
            f"It takes {comparison.instances} instance{'s' if comparison.instances > 1 else ''}, "
            f"{comparison.utilisation:.0%} busy: ${comparison.monthly:,.0f} a month"
        )
    else:
        console.print(f"One instance, {comparison.utilisation:.0%} busy: ${comparison.monthly:,.0f} a month")
    console.print()


def _main_table(comparison: Comparison) -> Table:
    kind = comparison.throughput.kind if comparison.throughput else ""
    busy = comparison.question.utilisation or 1.0
    table = Table(title="Beside Bedrock (USD for a million tokens: input / output / blended)")
    table.add_column("Bedrock model")
    for name in (
        "Bedrock",
        f"own ({kind})" if kind else "own",
        f"break-even output tokens/s\nan instance, {busy:.0%} busy",
        "break-even\nrequests/s",
        "utilisation\nneeded",
        "Bedrock\na month",
    ):
        table.add_column(name, justify="right")
    for each in comparison.against:
        table.add_row(
            each.name,
            _rate(each.rate),
            _rate(each.own) if each.own else "-",
            f"{each.break_even_output_tokens_per_s:,.0f}",
            f"{each.break_even_rps:.2f}",
            "-" if each.needed is None else f"{each.needed:.0%}" + (" (never)" if each.needed > 1 else ""),
            "-" if each.monthly is None else f"${each.monthly:,.0f}",
        )
    return table


def _ratio_table(comparison: Comparison) -> Table:
    table = Table(title="Break-even output tokens/s by input tokens for each output token, always busy")
    table.add_column("Bedrock model")
    for ratio in RATIOS:
        table.add_column(f"{ratio}:1", justify="right")
    for each in comparison.against:
        rates = (each.break_even_at(comparison.hourly, ratio) for ratio in RATIOS)
        table.add_row(each.name, *(f"{rate:,.0f}" for rate in rates))
    return table


def _utilisation_table(comparison: Comparison) -> Table:
    table = Table(title="Own USD for a million tokens, blended, by utilisation")
    for share in UTILISATIONS:
        table.add_column(f"{share:.0%}", justify="right")
    rates = (comparison.own_blended_at(share) for share in UTILISATIONS)
    table.add_row(*(f"{rate:.3f}" for rate in rates if rate is not None))
    return table


def _rate(rate: Rate) -> str:
    return f"{rate.input:.3f} / {rate.output:.3f} / {rate.blended:.3f}"
