"""A run's tables and plots, ratios first.

python -m benchmarks.peers.report benchmarks/results/DATE-peers.json
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from benchmarks.load.figures import Figures
from benchmarks.peers.bound import Bound, bound
from benchmarks.peers.limits import Limits
from benchmarks.peers.models import MODELS
from benchmarks.peers.record import Measurement, Record
from benchmarks.peers.workloads import SMOKE, WORKLOADS, Workload

from outcrop_compile.checkpoint.huggingface import CONFIG, read_config
from outcrop_compile.config import LlamaConfig

OURS = "outcrop"


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a table."""

    title: str
    field: str
    digits: int


COLUMNS = (
    Column("out tok/s", "throughput", 1),
    Column("decode tok/s per call", "decode_rate", 1),
    Column("TTFT p50 ms", "ttft_p50", 0),
    Column("TTFT p99 ms", "ttft_p99", 0),
    Column("TPOT p50 ms", "tpot_p50", 1),
    Column("TPOT p99 ms", "tpot_p99", 1),
)

_RATIOS = (
    "Outcrop's figure over the peer's, round by round: median (least to greatest). Above 1 is better in "
    "tokens a second, below 1 in milliseconds."
)
_SHARES = (
    "The least time that the bytes and multiply-adds of the workload take at the limits measured at the "
    "beginning of each round (each weight read once for all prompts and once a step; keys and values once a "
    "step), over the time that was taken. Median over the rounds."
)


class Results:
    """A record's measurements, by workload and peer."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._found: dict[tuple[str, str], list[Measurement]] = {}
        for each in record.measurements:
            self._found.setdefault((each.workload, each.peer), []).append(each)

    @property
    def workloads(self) -> list[Workload]:
        return [each for each in (*WORKLOADS, SMOKE) if any(name == each.name for name, _ in self._found)]

    def peers(self, workload: Workload) -> list[str]:
        """Those that ran it, in the order of the run."""
        return [name for name in self.record.subjects if (workload.name, name) in self._found]

    def values(self, workload: Workload, peer: str, field: str) -> list[float]:
        """One figure, of every round."""
        return [getattr(each.figures, field) for each in self._found[workload.name, peer]]

    def ratios(self, workload: Workload, peer: str, field: str) -> list[float]:
        """Outcrop's figure over the peer's, of every round that has both."""
        theirs = {each.round: each.figures for each in self._found[workload.name, peer]}
        return [
            getattr(each.figures, field) / getattr(theirs[each.round], field)
            for each in self._found.get((workload.name, OURS), [])
            if each.round in theirs
        ]


def write(record: Record, output: Path) -> None:
    """OUTPUT.json, OUTPUT.md and OUTPUT.svg; without measurements, the first alone."""
    record.save(output.with_suffix(".json"))
    results = Results(record)
    if not record.measurements:
        return
    plot = output.with_suffix(".svg")
    _plot(results, plot)
    parts = [
        f"# {record.date}: Outcrop and its peers, {record.precision}",
        _machine(record),
        f"![Output tokens a second and time to first token of each peer]({plot.name})",
        f"## Ratios\n\n{_RATIOS}",
        *(_ratio_table(results, workload) for workload in results.workloads if _compared(results, workload)),
        f"## Share of what the machine allows\n\n{_SHARES}",
        *_shares(results),
        "## Figures\n\nMedian (least to greatest) over the rounds.",
        *(_figure_table(results, workload) for workload in results.workloads),
        "## The peers",
        *_subjects(record),
    ]
    output.with_suffix(".md").write_text("\n\n".join(parts) + "\n")


def _machine(record: Record) -> str:
    def limit(name: str) -> str:
        return _spread([getattr(each.limits, name) / 1e9 for each in record.rounds], 1)

    others = max(each.others for each in record.rounds)
    bfloat16 = ""
    if any(each.limits.gemm_bfloat16 for each in record.rounds):
        bfloat16 = f", and {limit('gemm_bfloat16')} in bfloat16"
    bandwidth, fma, gemm = limit("bandwidth"), limit("fma"), limit("gemm_float32")
    return (
        f"Machine: {record.machine}.\n\nAt the start of each round it read {bandwidth} GB/s of memory and "
        f"did {fma} × 10⁹ multiply-adds a second in float32 registers; torch's products did {gemm} in "
        f"float32{bfloat16}. Other processes used {others:.2f} cores at most.\n\n"
        f"Command: `{record.command}`"
    )


def _compared(results: Results, workload: Workload) -> list[str]:
    """The peers that have a round in common with Outcrop."""
    return [
        name
        for name in results.peers(workload)
        if name != OURS and results.ratios(workload, name, "throughput")
    ]


def _ratio_table(results: Results, workload: Workload) -> str:
    rows = [
        [name, *(_spread(results.ratios(workload, name, column.field), 2) for column in COLUMNS)]
        for name in _compared(results, workload)
    ]
    return f"### {workload.title}\n\n" + _table(["Outcrop over", *(c.title for c in COLUMNS)], rows)


def _figure_table(results: Results, workload: Workload) -> str:
    rows = [
        [name, *(_spread(results.values(workload, name, c.field), c.digits) for c in COLUMNS)]
        for name in results.peers(workload)
    ]
    return f"### {workload.title}\n\n" + _table(["", *(c.title for c in COLUMNS)], rows)


def _shares(results: Results) -> Iterable[str]:
    """One table: for every workload and peer the share of the bound in all, and where there is one call, of
    prompt and decode apart."""
    record = results.record
    names = list(record.subjects)
    rows = []
    for workload in results.workloads:
        config = read_config(MODELS[workload.model].directory / CONFIG)
        for title, share in _PARTS if len(workload.prompts) == 1 else _PARTS[:1]:
            cells = [_share(results, workload, name, config, share) for name in names]
            rows.append([workload.title, title, *cells])
    yield _table(["workload", "part", *names], rows)


_PARTS: Sequence[tuple[str, Callable[[Bound, Figures, int], float]]] = (
    ("all", lambda least, taken, steps: least.total / taken.seconds),
    ("prompt", lambda least, taken, steps: least.prefill / (taken.ttft_p50 / 1000)),
    ("decode", lambda least, taken, steps: least.decode / (steps * taken.tpot_p50 / 1000)),
)


def _share(
    results: Results,
    workload: Workload,
    peer: str,
    config: LlamaConfig,
    share: Callable[[Bound, Figures, int], float],
) -> str:
    limits = _median_limits(results.record)
    least = bound(workload, config, results.record.precision, limits)
    if peer not in results.peers(workload):
        return ""
    taken = [
        Figures(*row)
        for row in zip(*(results.values(workload, peer, f.name) for f in fields(Figures)), strict=True)
    ]
    return f"{statistics.median(share(least, each, workload.max_tokens - 1) for each in taken):.0%}"


def _median_limits(record: Record) -> Limits:
    return Limits(
        *(statistics.median(getattr(each.limits, f.name) for each in record.rounds) for f in fields(Limits))
    )


def _subjects(record: Record) -> Iterable[str]:
    rows = [
        [name, each.version, each.weights, ", ".join(f"{m} {s:.1f}" for m, s in each.ready_after.items())]
        for name, each in record.subjects.items()
    ]
    yield _table(["", "version", "weights", "ready after, s"], rows)
    for name, each in record.subjects.items():
        yield f"{name}:\n\n```\n" + "\n".join(each.commands.values()) + "\n```"
    if record.failures:
        yield "Not run:\n\n" + "\n".join(f"- {failure}" for failure in record.failures)


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _plot(results: Results, path: Path) -> None:
    """A row of bars for each figure, a group for each workload."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams |= {"svg.fonttype": "none", "font.size": 8, "svg.hashsalt": "peers"}
    workloads, names = results.workloads, list(results.record.subjects)
    grid, axes = pyplot.subplots(
        2, len(workloads), figsize=(2.2 * len(workloads) + 0.6, 4.4), squeeze=False, layout="constrained"
    )
    for row, (field, title) in enumerate((("throughput", "output tokens/s"), ("ttft_p50", "TTFT p50, ms"))):
        for column, workload in enumerate(workloads):
            axis = axes[row][column]
            for place, name in enumerate(names):
                if name not in results.peers(workload):
                    continue
                values = results.values(workload, name, field)
                middle = statistics.median(values)
                whisker = [[middle - min(values)], [max(values) - middle]]
                axis.bar(place, middle, color=f"C{place}", yerr=whisker, capsize=2)
            axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
            axis.spines[["top", "right"]].set_visible(False)
            if row == 0:
                axis.set_title(workload.title.replace(", ", ",\n", 1))
            if column == 0:
                axis.set_ylabel(title)
    grid.savefig(path, metadata={"Date": None})
    pyplot.close(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path)
    path = parser.parse_args().record
    write(Record.load(path), path.with_suffix(""))


if __name__ == "__main__":
    main()
