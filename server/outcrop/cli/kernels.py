"""`outcrop kernels`: the NKI kernels for inf2 and trn1, run and counted in their simulator.

What the commands work with is imported when they run: it takes a while, and `outcrop --help` needs none of
it.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outcrop.cli.compile import options
from outcrop.cli.compile.progress import failing
from outcrop.cli.serve import fail
from outcrop.cli.simulate.progress import progress_line

if TYPE_CHECKING:
    from outcrop_compile.kernels.cost import KernelCost
    from outcrop_compile.kernels.table import Row
    from outcrop_kernels.nki.cases import Case
    from outcrop_kernels.nki.kernel import Kernel

app = typer.Typer(help="NKI kernels for Inferentia2 and Trainium1.", no_args_is_help=True)

_DEVICE = "not yet run on a device"
_DEGREES, _BATCHES, _CONTEXTS = (2, 8), (1, 8, 32), (512, 2048, 8192)
"""Of the table."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[KERNEL]...", help="Which (default: all).")]
DirectDma = Annotated[
    bool, typer.Option("--direct-dma", help="Without gathers by indices, which a device has to show to work.")
]


@app.command(name="list")
def list_kernels(kernels: Names = None, as_json: Json = False) -> None:
    """What kernels there are, what they take, and how they have been verified; of named ones, also their
    tilings: what lies where, what is moved and computed, and what that takes."""
    from outcrop_kernels.nki.catalogue import KERNELS
    from outcrop_kernels.nki.language import SIMULATED

    found = [_described(KERNELS[name], simulated=SIMULATED) for name in _chosen(kernels)]
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for one in found:
        typer.echo(f"{one['name']:<24} {', '.join(one['operations'])}")
        typer.echo(f"{'':<24} instead of {one['instead']}")
        if one["weights"] is not None:
            typer.echo(f"{'':<24} weights {one['weights']}")
        for name, entry in one["functions"].items():
            tolerance = ", ".join(f"{kind} {limit:.1e}" for kind, limit in entry["tolerance"].items())
            typer.echo(f"{'':<24} {name}: {'; '.join([*entry['arguments'], *entry['limits']])}")
            typer.echo(f"{'':<24} within {tolerance} of the reference")
        typer.echo(f"{'':<24} {', '.join(f'{how}: {state}' for how, state in one['verified'].items())}")
        if kernels:
            typer.echo(f"\n{one['tiling']}\n")


def _described(kernel: Kernel, *, simulated: bool) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "operations": list(kernel.operations),
        "instead": kernel.instead,
        "weights": kernel.layout,
        "tiling": kernel.tiling,
        "functions": {
            entry.name: {
                "arguments": [
                    f"{one.name} [{', '.join(one.shape.split())}]"
                    + ("" if one.dtype == "x" else f" {one.dtype}")
                    for one in entry.contract.arguments
                ],
                "limits": [limit.says for limit in entry.contract.limits],
                "tolerance": dict(entry.contract.tolerance),
                "gathers": entry.gathers,
            }
            for entry in kernel.entries
        },
        "verified": {
            "simulator": "a grid of shapes equals the reference (outcrop kernels check --all)",
            "nki.simulate": "AWS's nki is not installed" if simulated else "see tests/kernels/nki",
            "device": _DEVICE,
        },
    }


@app.command()
def check(
    kernels: Names = None,
    every: Annotated[bool, typer.Option("--all", help="The whole grid: much longer.")] = False,
    direct_dma: DirectDma = False,
    as_json: Json = False,
) -> None:
    """Run kernels in the simulator over a grid of shapes, and compare them with the reference.

    A difference is a part of the largest magnitude along a result's last dimension. Exit status 1 if one is
    larger than its contract allows, or a kernel is refused.
    """
    from outcrop_kernels.nki.cases import cases

    _need_simulator()
    results: list[dict[str, Any]] = []
    for name in _chosen(kernels):
        chosen = [case for case in cases() if case.kernel == name and (every or case.small)]
        with _counting(len(chosen)) as done:
            for case in chosen:
                results.append(_checked(case, gather=not direct_dma))
                done()
        if not as_json:
            _say_checked(name, results[-len(chosen) :])
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    raise typer.Exit(0 if all(one["good"] for one in results) else 1)


def _checked(case: Case, *, gather: bool) -> dict[str, Any]:
    """What became of a case; what is bad is told at once."""
    from outcrop_kernels.nki.cases import check as run
    from outcrop_kernels.nki.simulator import Refused

    found: dict[str, Any] = {"kernel": case.kernel, "case": case.words, "dtype": case.dtype}
    try:
        outcome = run(case, gather=gather)
        found |= {"error": outcome.error, "allowed": outcome.allowed, "good": outcome.good}
        said = f"differs by {outcome.error:.2e}, allowed {outcome.allowed:.2e}"
    except Refused as refused:
        said = str(refused)
        found |= {"refused": said, "good": False}
    if not found["good"]:
        typer.echo(f"{case.kernel} {case.words}: {said}", err=True)
    return found


def _say_checked(name: str, found: list[dict[str, Any]]) -> None:
    """A line for each type."""
    for dtype in dict.fromkeys(one["dtype"] for one in found):
        mine = [one for one in found if one["dtype"] == dtype]
        errors = [one["error"] for one in mine if "error" in one]
        allowed = max((one["allowed"] for one in mine if "error" in one), default=0.0)
        bad = sum(not one["good"] for one in mine)
        typer.echo(
            f"{name:<24} {dtype:<9} {len(mine):>4} cases, largest difference {max(errors, default=0.0):.1e} "
            f"of {allowed:.1e} allowed" + (f", {bad} BAD" if bad else "")
        )


@app.command()
def profile(
    kernels: Names = None,
    model: Annotated[str, options.option("MODEL", "Checkpoint, or a name.")] = "Llama-3.1-8B",
    tp: Annotated[int, options.option("N", "NeuronCores that share the model.")] = 8,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Of the bucket.")] = 8,
    width: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of a row: 1 for decode.")] = 1,
    context: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="That a row reads.")] = 2048,
    block_size: options.BlockSize = 32,
    direct_dma: DirectDma = False,
    as_json: Json = False,
) -> None:
    """What each kernel would cost in a step, by the simulator's counts: bytes, engines, and what decides.

    Each is counted as if it were the only one, in bfloat16, but for int8_dequant_matmul, which a model in
    int8 calls; a line for each form of call. The first time is a floor, with all engines overlapping
    perfectly; in the second each takes its instructions in the kernel's order and waits for what they read.
    DMA and HBM: shares of their bandwidths in the first. MMAC: millions of multiply-adds of a call; SBUF, of
    a partition, and PSUM, in banks: in use at once. Not yet run on a device.
    """
    from outcrop.cli.compile.models import model_config
    from outcrop_compile.artifact.kernels import kernel_names
    from outcrop_compile.bucket import Bucket, StepKind
    from outcrop_compile.graph import Graph, Variant
    from outcrop_compile.hlo.record import Sizes
    from outcrop_compile.kernels.cost import KernelCosts
    from outcrop_compile.tensor_parallel import divide

    _need_simulator()
    wanted = _chosen(kernels)
    with failing():
        _, config = model_config(model)
        divide(config, tp)
    blocks = -(-context // block_size)
    kind = StepKind.DECODE if width == 1 else StepKind.PREFILL
    graph, costs = Graph(Bucket(kind, rows, width, blocks), Variant.SAMPLED), KernelCosts()
    found: list[dict[str, Any]] = []
    with _counting(len(wanted)) as done:
        for name in wanted:
            sizes = Sizes(
                config=config,
                dtype="int8" if name == "int8_dequant_matmul" else "bfloat16",
                tp=tp,
                block_size=block_size,
                num_blocks=rows * blocks,
                max_rows=rows,
                max_positions=blocks * block_size,
                kernels=kernel_names([name], gather=not direct_dma),
            )
            found += [_cost(cost) for cost in costs.of(sizes, graph)]
            done()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    head = f"{'kernel':<38} {'calls':>5} {'us a call':>9} {'ordered':>8} {'decides':<13}"
    typer.echo(f"{head} {'DMA':>4} {'HBM':>4} {'MB a step':>9} {'MMAC':>7} {'SBUF KiB':>8} {'PSUM':>4}")
    for one in found:
        call = f"{one['function']} {'x'.join(map(str, one['shape']))}"
        typer.echo(
            f"{call:<38} {one['calls']:>5} {one['seconds'] * 1e6:>9.1f} "
            f"{one['scheduled_seconds'] * 1e6:>8.1f} {one['bound']:<13} "
            f"{one['dma_share']:>4.0%} {one['hbm_share']:>4.0%} {one['step_bytes'] / 1e6:>9.2f} "
            f"{one['macs'] / 1e6:>7.1f} {one['sbuf_peak'] / 1024:>8.1f} {one['psum_banks']:>4}"
        )


def _cost(cost: KernelCost) -> dict[str, Any]:
    report = cost.report
    return {
        "kernel": cost.kernel,
        "function": cost.function,
        "shape": list(cost.shape),
        "calls": cost.calls,
        "seconds": report.seconds,
        "scheduled_seconds": report.scheduled_seconds,
        "bound": report.bound,
        "engine_seconds": report.engine_seconds(),
        "dma_share": report.dma_share,
        "hbm_share": report.hbm_share,
        "hbm_read": report.dma.hbm_read,
        "hbm_written": report.dma.hbm_written,
        "step_bytes": cost.bytes,
        "step_seconds": cost.seconds,
        "macs": report.macs,
        "instructions": report.instructions,
        "sbuf_peak": report.sbuf_peak,
        "psum_banks": report.psum_peak,
    }


@app.command()
def table(
    model: Annotated[str, options.option("MODEL", "Checkpoint, or a name.")] = "Llama-3.1-8B",
    python: Annotated[
        str | None, options.option("PATH", "Interpreter that has torch_xla (default: this, or .venv-xla's).")
    ] = None,
    dtype: options.DtypeName = "bfloat16",
    tp: Annotated[list[int] | None, typer.Option(min=1, metavar="N", help="Cores (default: 2, 8).")] = None,
    rows: Annotated[list[int] | None, typer.Option(min=1, metavar="N", help="(default: 1, 8, 32).")] = None,
    context: Annotated[
        list[int] | None,
        typer.Option(min=1, metavar="TOKENS", help="That a row reads (default: 512, 2048, 8192)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode steps of XLA's graphs beside those with kernels: bytes, and estimated times. Takes minutes.

    --tp, --rows and --context may be given more than once. Needs torch_xla, as `outcrop compile lower` does,
    and no device.
    """
    from outcrop.cli.compile.models import model_config
    from outcrop_compile.hlo.environment import LoweringFailed, find_python
    from outcrop_compile.kernels.table import rows as made

    _need_simulator()
    degrees, batches, contexts = tuple(tp or _DEGREES), tuple(rows or _BATCHES), tuple(context or _CONTEXTS)
    found = []
    with failing():
        name, config = model_config(model)
        try:
            with _counting(len(degrees) * len(batches) * len(contexts)) as done:
                for row in made(
                    config, degrees, batches, contexts, find_python(python), options.dtype_of(dtype)
                ):
                    found.append(row)
                    done()
        except LoweringFailed as error:
            fail(str(error))
    if as_json:
        typer.echo(json.dumps([_row(row) for row in found], indent=1))
        return
    typer.echo(f"{name} in {dtype}: GB of one rank in a decode step, weights and KV of them, and ms\n")
    moved, times = "weights XLA attention fewer all fewer KV fewer", "XLA slow attention ordered all ordered"
    columns = f"tp rows context {moved} {times}".split()
    typer.echo(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in found:
        some, every = row.attention, row.every
        before, after = row.kv
        numbers = [
            *(
                row.weights / 1e9,
                row.xla / 1e9,
                some.bytes / 1e9,
                row.xla / some.bytes,
                every.bytes / 1e9,
                row.xla / every.bytes,
            ),
            *(before / 1e9, before / after, row.xla_seconds * 1e3, row.xla_gathers * 1e3),
            *(one * 1e3 for each in (some, every) for one in (each.seconds, each.scheduled_seconds)),
        ]
        cells = [str(row.tp), str(row.rows), str(row.context), *(f"{number:.2f}" for number in numbers)]
        typer.echo(f"| {' | '.join(cells)} |")


def _row(row: Row) -> dict[str, Any]:
    values = asdict(row)
    for name in ("attention", "every"):
        values[name]["costs"] = [_cost(one) for one in getattr(row, name).costs]
    return values


def _need_simulator() -> None:
    from outcrop_kernels.nki.language import SIMULATED

    if not SIMULATED:
        fail(
            "AWS's package nki is installed here, and kernels are bound to it: set OUTCROP_NKI=simulator to "
            "run them in the simulator"
        )


def _chosen(names: list[str] | None) -> list[str]:
    from outcrop_kernels.nki.catalogue import KERNELS

    if unknown := sorted(set(names or []) - set(KERNELS)):
        fail(f"there is no kernel {', '.join(unknown)}; there are {', '.join(KERNELS)}")
    return names or list(KERNELS)


@contextmanager
def _counting(total: int) -> Iterator[Callable[[], None]]:
    """What is called as each of `total` is done, for the line of progress."""
    numbers = itertools.count(1)
    with progress_line(sys.stderr) as show:

        def done() -> None:
            number = next(numbers)
            show(f"{number} of {total}", number / total)

        yield done
