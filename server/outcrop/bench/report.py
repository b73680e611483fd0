"""Figures as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import outcrop.bench
from outcrop.bench.call import Call
from outcrop.bench.table import LATENCIES
from outcrop.html_page import page, table
from outcrop.svg import plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SUMMARY = (
    ("completed", "answered", "{:,.0f}"),
    ("errors", "failed", "{:,.0f}"),
    ("offered_per_s", "offered, requests/s", "{:.2f}"),
    ("requests_per_s", "answered, requests/s", "{:.2f}"),
    ("input_tokens_per_s", "input tokens/s", "{:,.1f}"),
    ("output_tokens_per_s", "output tokens/s", "{:,.1f}"),
    ("mean_input_tokens", "mean input tokens", "{:,.1f}"),
    ("mean_output_tokens", "mean output tokens", "{:,.1f}"),
    ("goodput_per_s", "goodput, requests/s", "{:.2f}"),
    ("good_share", "kept to the SLO", "{:.1%}"),
)


def html_report(record: Mapping[str, Any], calls: Sequence[Call]) -> str:
    """record: what `outcrop bench --json` prints. Raises NoMatplotlib."""
    done = [call for call in calls if call.answered]
    rows = [(text, form.format(record[name])) for name, text, form in _SUMMARY if record[name] is not None]
    rows += [(f"failed: {kind}", str(count)) for kind, count in record["errors_by_kind"].items()]
    spreads = [(name, *(f"{value:,.1f}" for value in record[field].values())) for name, field in LATENCIES]
    parts = [
        f"<p>{escape(record['protocol'])} at {escape(record['url'])}, {escape(record['load'])}, "
        f"{record['requests']} requests, seed {record['seed']}</p>",
        table(("", ""), rows),
        table(("ms", "mean", "p50", "p90", "p95", "p99", "max"), spreads),
    ]
    if done:
        parts += [plot(lambda axes: _distribution(axes, done)), plot(lambda axes: _course(axes, done))]
    parts.append(f"<h2>Definitions</h2><pre>{escape(cleandoc(outcrop.bench.__doc__ or ''))}</pre>")
    return page(f"{record['model']}, measured", parts)


def _distribution(axes: Axes, done: Sequence[Call]) -> None:
    first = sorted(call.ttft_ms for call in done)
    whole = sorted(call.e2e_ms for call in done)
    shares = [100 * (index + 1) / len(done) for index in range(len(done))]
    axes.plot(first, shares, label="time to first token")
    axes.plot(whole, shares, label="whole answer")
    axes.set(title="Latency", xlabel="ms", ylabel="% of answers that took at most so long", xscale="log")


def _course(axes: Axes, done: Sequence[Call]) -> None:
    start = min(call.begun for call in done)
    begun, first = [call.begun - start for call in done], [call.ttft_ms for call in done]
    axes.plot(begun, first, ".", label="time to first token")
    axes.set(title="As it went", xlabel="seconds since the first request", ylabel="ms", ylim=(0, None))
