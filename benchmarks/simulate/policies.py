"""Outcrop's scheduling against what the vLLM Neuron plug-in documents, in virtual time.

    python benchmarks/simulate/policies.py --plot policies.svg

Same model, instance, KV cache, decode buckets and step times for all; what differs is what each does with
them (`outcrop.simulate.serving`): which step comes next, which steps are submitted ahead, how prompts are cut
into buckets, how many requests are admitted. Prints Markdown tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from outcrop.simulate.figures import Figures, figures
from outcrop.simulate.fleet import simulate
from outcrop.simulate.machine import Machine, make_machine
from outcrop.simulate.serving import SERVINGS
from outcrop.simulate.slo import PRESETS
from outcrop.simulate.step_time import step_model
from outcrop.simulate.trace import Lengths, Trace, poisson
from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan import PlanRequest
from outcrop_compile.shapes import find_shape

SLO = PRESETS["mlperf-8b-server"]
NAMES = ("paced", "interleave", "prefill-first", "vllm-neuron")
COLOURS = {"paced": "#1f77b4", "interleave": "#2ca02c", "prefill-first": "#9467bd", "vllm-neuron": "#d62728"}


@dataclass(frozen=True)
class Case:
    """A kind of load on an instance, at several rates (requests a second)."""

    title: str
    instance: str
    tp: int
    batch: int
    rates: tuple[float, ...]
    load: Callable[[float, int, int], Trace]

    def machine(self, name: str) -> Machine:
        shape = find_shape("Llama-3.1-8B")
        assert shape is not None
        request = PlanRequest(
            shape.name, shape.config, INSTANCES[self.instance], tp=self.tp, batch=self.batch
        )
        return make_machine(request, SERVINGS[name], step_model())


CHAT = Lengths(600, 180, 1.0, 0.7, longest=4000)
LONG = Lengths(2500, 120, 0.5, 0.6, longest=6000)
CASES = (
    Case(
        "chat, Poisson: 600 tokens in, 180 out (medians), inf2.48xlarge",
        "inf2.48xlarge", 8, 32, (5.0, 6.0, 6.5, 7.0, 7.5, 8.0),
        lambda rate, count, seed: poisson(rate, count, CHAT, seed),
    ),
    Case(
        "the same in bursts (gamma gaps, shape 0.25)",
        "inf2.48xlarge", 8, 32, (4.0, 5.0, 5.5, 6.0, 6.5, 7.0),
        lambda rate, count, seed: poisson(rate, count, CHAT, seed, burstiness=0.25),
    ),
    Case(
        "long prompts, Poisson: 2,500 tokens in, 120 out, inf2.48xlarge",
        "inf2.48xlarge", 8, 32, (3.0, 4.0, 4.5, 5.0, 5.5, 6.0),
        lambda rate, count, seed: poisson(rate, count, LONG, seed),
    ),
    Case(
        "chat, Poisson, on one chip: inf2.xlarge, 16 rows",
        "inf2.xlarge", 2, 16, (0.2, 0.3, 0.4, 0.45, 0.5, 0.6),
        lambda rate, count, seed: poisson(rate, count, CHAT, seed),
    ),
)  # fmt: skip

Results = dict[tuple[str, float], Figures]


def run(case: Case, count: int, seed: int) -> Results:
    found: Results = {}
    for name in NAMES:
        machine = case.machine(name)
        for rate in case.rates:
            print(f"{case.title}: {name} at {rate:g}/s", file=sys.stderr)
            found[name, rate] = figures(simulate(machine, case.load(rate, count, seed)), SLO)
    return found


def table(case: Case, results: Results) -> Iterator[str]:
    yield f"## {case.title[0].upper()}{case.title[1:]}"
    yield ""
    yield (
        "| requests/s | policy | keep the SLO | goodput/s | TTFT p50 / p99 ms | TPOT p50 / p99 ms | "
        "longest gap p99 ms | prefill padding | out tok/s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for rate in case.rates:
        for name in NAMES:
            each = results[name, rate]
            yield (
                f"| {rate:g} | {name} | {each.good_share:.1%} | {each.goodput:.2f} | "
                f"{each.ttft.p50:.0f} / {each.ttft.p99:.0f} | {each.tpot.p50:.1f} / {each.tpot.p99:.1f} | "
                f"{each.gap.p99:.0f} | {each.prefill_padding:.0%} | {each.output_tokens_per_s:.0f} |"
            )
    yield ""


def plot(cases: tuple[Case, ...], results: list[Results], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams |= {"svg.fonttype": "none", "font.size": 8, "svg.hashsalt": "policies"}
    rows: tuple[tuple[str, Callable[[Figures], float]], ...] = (
        ("goodput, requests/s", lambda each: each.goodput),
        ("TPOT p99, ms", lambda each: each.tpot.p99),
        ("longest gap p99, ms", lambda each: each.gap.p99),
    )
    figure, grid = pyplot.subplots(
        len(rows), len(cases), figsize=(3.2 * len(cases), 7), layout="constrained", squeeze=False
    )
    for column, (case, found) in enumerate(zip(cases, results, strict=True)):
        for row, (label, value) in enumerate(rows):
            axes = grid[row][column]
            for name in NAMES:
                axes.plot(
                    case.rates,
                    [value(found[name, rate]) for rate in case.rates],
                    marker=".",
                    color=COLOURS[name],
                    label=name,
                )
            axes.grid(alpha=0.3)
            axes.set_ylim(bottom=0)
            if column == 0:
                axes.set_ylabel(label)
            if row == 0:
                axes.set_title(case.title.replace(": ", ":\n").replace(" (", "\n("))
        grid[-1][column].set_xlabel("requests offered a second")
    grid[0][0].legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000, help="requests a run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="an SVG file to write")
    options = parser.parse_args()
    results = [run(case, options.count, options.seed) for case in CASES]
    if options.plot is not None:
        plot(CASES, results, options.plot)
    for case, found in zip(CASES, results, strict=True):
        print("\n".join(table(case, found)))


if __name__ == "__main__":
    main()
