"""A sweep as a picture: what a token costs against how fast it comes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from outcrop.html_page import page
from outcrop.simulate.sweep import Candidate, Sweep
from outcrop.svg import picture, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")


def save_frontier(sweep: Sweep, path: Path, title: str) -> None:
    """Write the plot to an .svg or .html file. The same sweep makes the same bytes. Raises NoMatplotlib,
    ValueError for another kind of file, OSError."""
    if path.suffix == ".svg":
        path.write_text(frontier_svg(sweep, title))
    elif path.suffix == ".html":
        path.write_text(page(title, [plot(lambda axes: _frontier(axes, sweep, title))]))
    else:
        raise ValueError(f"--plot {path}: an .svg or .html file can be written")


def frontier_svg(sweep: Sweep, title: str) -> str:
    """Raises NoMatplotlib."""
    return picture(lambda axes: _frontier(axes, sweep, title))


def _frontier(axes: Axes, sweep: Sweep, title: str) -> None:
    names = list(dict.fromkeys(each.machine.plan.request.instance.name for each in sweep.candidates))
    for name, colour in zip(names, _COLOURS * len(names), strict=False):
        for holds in (True, False):
            chosen = [
                each
                for each in sweep.candidates
                if each.machine.plan.request.instance.name == name and each.figures.holds_slo is holds
            ]
            if chosen:
                axes.scatter(
                    *_places(chosen),
                    color=colour,
                    marker="o" if holds else "x",
                    label=name if holds else f"{name}, SLO not held",
                )
    axes.plot(*_places(sweep.frontier()), color="#999999", linewidth=1, zorder=0, label="frontier")
    if (best := sweep.best) is not None:
        axes.annotate(
            best.name,
            (best.tokens_per_user, best.per_million_tokens),
            textcoords="offset points",
            xytext=(6, 8),
        )
    axes.set(
        title=title, xlabel="tokens a second that a client sees (median)",
        ylabel="$ a million tokens, in and out", yscale="log",
    )  # fmt: skip


def _places(candidates: list[Candidate]) -> tuple[list[float], list[float]]:
    return (
        [each.tokens_per_user for each in candidates],
        [each.per_million_tokens for each in candidates],
    )
