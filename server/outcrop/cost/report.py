"""A comparison as one HTML file that needs nothing else: for whoever decides."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING

from outcrop.cost.compare import HOURS_A_MONTH, RATIOS, UTILISATIONS, Comparison
from outcrop.html_page import page, table
from outcrop.svg import plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def html_report(comparison: Comparison) -> str:
    """The report. Raises NoMatplotlib."""
    question, load = comparison.question, comparison.question.load
    title = f"{question.model} on {question.instance} ({question.option}) and on Amazon Bedrock"
    rate = f"{load.rps:.3g} requests a second of " if load.rps else ""
    parts = [
        f"<p>{escape(_summary(comparison))}</p>",
        f"<p>Load: {rate}{load.input_tokens:.0f} input and {load.output_tokens:.0f} output tokens.</p>",
        _table(comparison),
        *(_plots(comparison)),
        f"<h2>What this rests on</h2><ul>{_grounds(comparison)}</ul>",
    ]
    return page(title, parts)


def _summary(comparison: Comparison) -> str:
    """The answer in a sentence or two; nothing that the figures do not say."""
    first = comparison.against[0]
    text = (
        f"An hour of the instance costs ${comparison.hourly:.4f}. It costs what {first.name} does "
        f"on Bedrock when it makes {first.break_even_output_tokens_per_s:,.0f} output tokens a second"
    )
    if comparison.throughput is None or first.needed is None:
        return text + "; how many it makes is not known here."
    text += f" ({first.break_even_rps:.2f} requests). "
    made = f"{comparison.throughput.output_tokens_per_s:,.0f} ({comparison.throughput.kind})"
    if first.needed > 1:
        return text + f"It makes {made} at most, so Bedrock is cheaper at every load."
    text += f"It makes {made} at most, so it has to be {first.needed:.0%} busy; beyond that it is cheaper. "
    if first.monthly is not None:
        text += (
            f"At this load: ${comparison.monthly:,.0f} a month on {comparison.instances} of them, "
            f"${first.monthly:,.0f} on Bedrock."
        )
    return text


def _table(comparison: Comparison) -> str:
    kind = comparison.throughput.kind if comparison.throughput else "throughput not known"
    head = (
        "Bedrock model", "$/1M input", "$/1M output", f"own $/1M input ({kind})", f"own $/1M output ({kind})",
        "break-even output tokens/s", "utilisation needed", "Bedrock a month",
    )  # fmt: skip
    rows = [
        (
            each.name,
            f"{each.rate.input:.3f}",
            f"{each.rate.output:.3f}",
            f"{each.own.input:.3f}" if each.own else "-",
            f"{each.own.output:.3f}" if each.own else "-",
            f"{each.break_even_output_tokens_per_s:,.0f}",
            "-" if each.needed is None else "never" if each.needed > 1 else f"{each.needed:.0%}",
            "-" if each.monthly is None else f"${each.monthly:,.0f}",
        )
        for each in comparison.against
    ]
    return table(head, rows)


def _grounds(comparison: Comparison) -> str:
    grounds = [f"Prices of {each.date}: {each.name}. {each.note}" for each in comparison.sources]
    grounds.append("List prices, without tax, storage, load balancers and data transfer.")
    if comparison.throughput is not None:
        grounds.append(f"Throughput, {comparison.throughput.kind}: {comparison.throughput.source}.")
    grounds.append(
        "Own prices of input and output tokens share an hour's price in the proportion of Bedrock's prices."
    )
    if (energy := comparison.energy) is not None:
        grounds.append(
            f"Energy, an estimate: {energy.kwh_per_million:.2f} kWh for a million output tokens. "
            f"Assumed: {energy.assumption}."
        )
    said = "".join(f"<li>{escape(each)}</li>" for each in grounds)
    return said + "".join(f'<li class="mind">{escape(each)}</li>' for each in comparison.warnings)


def _plots(comparison: Comparison) -> list[str]:
    plots = [plot(partial(_plot_ratio, comparison))]
    if comparison.throughput is not None:
        plots.insert(0, plot(partial(_plot_utilisation, comparison)))
        plots.append(plot(partial(_plot_bill, comparison)))
    return plots


def _plot_utilisation(comparison: Comparison, axes: Axes) -> None:
    rates = [comparison.own_blended_at(share) or 0.0 for share in UTILISATIONS]
    kind = comparison.throughput.kind if comparison.throughput else ""
    axes.plot([share * 100 for share in UTILISATIONS], rates, "o-", label=f"own ({kind} throughput)")
    for number, each in enumerate(comparison.against):
        axes.axhline(each.rate.blended, color=f"C{number + 1}", linestyle="--", label=f"Bedrock: {each.name}")
    axes.set(
        title="What a million tokens cost", xlabel="utilisation, %", ylabel="USD, input and output blended",
        yscale="log",
    )  # fmt: skip
    _plain_numbers(axes)


def _plot_ratio(comparison: Comparison, axes: Axes) -> None:
    for each in comparison.against:
        rates = [each.break_even_at(comparison.hourly, ratio) for ratio in RATIOS]
        axes.plot(RATIOS, rates, "o-", label=each.name)
    axes.set(
        title="Break-even: output tokens a second that one instance has to make",
        xlabel="input tokens for each output token", ylabel="output tokens a second", yscale="log",
    )  # fmt: skip
    _plain_numbers(axes)


def _plot_bill(comparison: Comparison, axes: Axes) -> None:
    """By load, as far as three instances, or the question's own load, go."""
    assert comparison.throughput is not None
    output = comparison.question.load.output_tokens
    one = comparison.throughput.output_tokens_per_s / output
    most = max(3 * one, 1.5 * (comparison.question.load.rps or 0))
    loads = [most * step / 120 for step in range(1, 121)]
    own = [-(-load // one) * comparison.hourly * HOURS_A_MONTH for load in loads]
    axes.step(loads, own, where="post", label=f"own ({comparison.throughput.kind} throughput)")
    for each in comparison.against:
        per_request = (
            comparison.question.load.input_tokens * each.rate.input + output * each.rate.output
        ) / 1e6
        axes.plot(loads, [load * 3600 * HOURS_A_MONTH * per_request for load in loads], "--", label=each.name)
    if comparison.question.load.rps:
        axes.axvline(comparison.question.load.rps, color="grey", linewidth=1, label="this load")
    axes.set(title="A month's bill", xlabel="requests a second", ylabel="USD", ylim=(0, 3 * max(own)))


def _plain_numbers(axes: Axes) -> None:
    """Of a logarithmic axis: 0.2 and not powers of ten."""
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter("{x:,g}")
