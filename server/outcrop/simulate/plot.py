"""A sweep as a picture: what a token costs against how fast it comes."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path

from outcrop.cost.report import NoMatplotlib
from outcrop.simulate.sweep import Candidate, Sweep

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")


def save_frontier(sweep: Sweep, path: Path, title: str) -> None:
    """Write the plot to an .svg or .html file. The same sweep makes the same bytes. Raises NoMatplotlib,
    ValueError for another kind of file, OSError."""
    if path.suffix not in (".svg", ".html"):
        raise ValueError(f"--plot {path}: an .svg or .html file can be written")
    picture = frontier_svg(sweep, title)
    if path.suffix == ".html":
        picture = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<body>{picture[picture.index('<svg') :]}</body></html>\n"
        )
    path.write_text(picture)


def frontier_svg(sweep: Sweep, title: str) -> str:
    try:
        import matplotlib
    except ImportError:
        raise NoMatplotlib from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "outcrop", "font.size": 8}):
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
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
        axes.set_xlabel("tokens a second that a client sees (median)")
        axes.set_ylabel("$ a million tokens, in and out")
        axes.set_yscale("log")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend()
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return written.getvalue()


def _places(candidates: list[Candidate]) -> tuple[list[float], list[float]]:
    return (
        [each.tokens_per_user for each in candidates],
        [each.per_million_tokens for each in candidates],
    )
