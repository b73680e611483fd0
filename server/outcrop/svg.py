"""Plots as SVG, to stand inside an HTML report or by themselves."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class NoMatplotlib(RuntimeError):
    """Plots need a library that is not installed."""

    def __init__(self) -> None:
        super().__init__("plots need matplotlib: pip install 'outcrop[plots]'")


def plot(draw: Callable[[Axes], None]) -> str:
    """The <svg> element of what `draw` drew. Raises NoMatplotlib."""
    text = picture(draw)
    return text[text.index("<svg") :]


def picture(draw: Callable[[Axes], None]) -> str:
    """The same as a file of its own. Raises NoMatplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise NoMatplotlib from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    # Text stays text, and ids depend on nothing, so that a report is the same each time it is made.
    settings: Any = {"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "outcrop"}
    with matplotlib.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
        draw(axes)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return buffer.getvalue()
