"""A comparison on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from outcrop.cost.compare import UTILISATIONS, Comparison, Rate

_SHOWN_RATIOS = (0.5, 1, 2, 3, 6, 10, 20)


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
    for source in comparison.sources:
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
        console.print("Throughput: not known (--from); what depends on it is left out")
    else:
        console.print(
            f"Throughput ({found.kind}): {found.output_tokens_per_s:.0f} output tokens/s. {found.source}"
        )
    if comparison.instances is not None:
        console.print(
            f"It takes {comparison.instances} instance{'s' if comparison.instances > 1 else ''}, "
            f"{comparison.utilisation:.0%} busy: ${comparison.monthly:,.0f} a month"
        )
    else:
        console.print(f"One instance costs ${comparison.monthly:,.0f} a month")
    console.print()


def _main_table(comparison: Comparison) -> Table:
    kind = comparison.throughput.kind if comparison.throughput else "not known"
    busy = comparison.question.utilisation or 1.0
    table = _table(f"USD for a million input / output tokens; break-even of an instance {busy:.0%} busy")
    for name in (
        "Bedrock",
        f"own\n({kind})",
        "even at\ntokens/s",
        "or at\nreq/s",
        "busy",
        "Bedrock\na month",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for each in comparison.against:
        needed = "-" if each.needed is None else "never" if each.needed > 1 else f"{each.needed:.0%}"
        table.add_row(
            each.name,
            _rate(each.rate),
            _rate(each.own) if each.own else "-",
            f"{each.break_even_output_tokens_per_s:,.0f}",
            f"{each.break_even_rps:.2f}",
            needed,
            "-" if each.monthly is None else f"${each.monthly:,.0f}",
        )
    return table


def _ratio_table(comparison: Comparison) -> Table:
    table = _table("Break-even output tokens/s by input tokens for each output token, always busy")
    for ratio in _SHOWN_RATIOS:
        table.add_column(f"{ratio}:1", justify="right", no_wrap=True)
    for each in comparison.against:
        rates = (each.break_even_at(comparison.hourly, ratio) for ratio in _SHOWN_RATIOS)
        table.add_row(each.name, *(f"{rate:,.0f}" for rate in rates))
    return table


def _utilisation_table(comparison: Comparison) -> Table:
    assert comparison.throughput is not None
    table = _table(f"Own USD for a million tokens, both kinds ({comparison.throughput.kind})")
    shares = UTILISATIONS[1::2]
    for share in shares:
        table.add_column(f"{share:.0%}", justify="right", no_wrap=True)
    rates = (comparison.own_blended_at(share) for share in shares)
    table.add_row("utilisation", *(f"{rate:.3f}" for rate in rates if rate is not None))
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    return table


def _rate(rate: Rate) -> str:
    return f"{rate.input:.3g}/{rate.output:.3g}"
