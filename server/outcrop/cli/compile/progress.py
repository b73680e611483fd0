"""How far a long command is, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from outcrop.cli.serve import fail

Report = Callable[[str, float], None]


@contextmanager
def reporting() -> Iterator[Report]:
    """A bar for each stage on a terminal; elsewhere, lines at each quarter."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description:<8}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    stages: dict[str, TaskID] = {}
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:

        def report(stage: str, fraction: float) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=1.0)
            bars.update(stages[stage], completed=fraction)

        yield report


def _lines(console: Console) -> Report:
    said: dict[str, int] = {}

    def report(stage: str, fraction: float) -> None:
        quarter = int(fraction * 4)
        if quarter > said.get(stage, -1):
            said[stage] = quarter
            console.print(f"{stage:<8} {fraction:4.0%}", highlight=False)

    return report


@contextmanager
def failing() -> Iterator[None]:
    """A mistake is told in a line, not in a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        fail(str(error))
