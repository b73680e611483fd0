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
    from outcrop_kernels.nki.kernel import Kernel

app = typer.Typer(help="NKI kernels for Inferentia2 and Trainium1.", no_args_is_help=True)

_DEVICE = "not yet run on a device"
_TABLE = ((2, 8), (1, 8, 32), (512, 2048, 8192))
"""Tensor-parallel degrees, batches and contexts of the table."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[KERNEL]...", help="Which (default: all).")]
DirectDma = Annotated[
    bool, typer.Option("--direct-dma", help="Without gathers by indices, which a device has to show to work.")
]


@app.command(name="list")
def list_kernels(as_json: Json = False) -> None:
    """What kernels there are, what they take, and how they have been verified."""
    from outcrop_kernels.nki.catalogue import KERNELS
    from outcrop_kernels.nki.language import SIMULATED

    found = [_described(kernel, simulated=SIMULATED) for kernel in KERNELS.values()]
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


def _described(kernel: Kernel, *, simulated: bool) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "operations": list(kernel.operations),
        "instead": kernel.instead,
        "weights": kernel.layout,
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
    every: Annotated[bool, typer.Option("--all", help="The whole grid: minutes, not seconds.")] = False,
    direct_dma: DirectDma = False,
    as_json: Json = False,
) -> None:
    """Run kernels in the simulator over a grid of shapes, and compare them with the reference.

    Exit status 1 if one is refused or differs by more than its contract allows.
    """
    from outcrop_kernels.nki.cases import cases
    from outcrop_kernels.nki.cases import check as run
    from outcrop_kernels.nki.simulator import Refused

    _need_simulator()
    wanted, results, bad = _chosen(kernels), [], 0
    chosen = [case for case in cases() if case.kernel in wanted and (every or case.small)]
    with _counting(len(chosen)) as done:
        for case in chosen:
            found: dict[str, Any] = {"kernel": case.kernel, "case": case.words}
            try:
                outcome = run(case, gather=not direct_dma)
                found |= {"error": outcome.error, "allowed": outcome.allowed, "good": outcome.good}
            except Refused as refused:
                found |= {"refused": str(refused), "good": False}
            results.append(found)
            if not found["good"]:
                bad += 1
                said = found.get(
                    "refused", f"differs by {found.get('error')}, allowed {found.get('allowed')}"
                )
                typer.echo(f"{case.kernel} {case.words}: {said}", err=True)
            done()
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    else:
        for name in wanted:
            mine = [one for one in results if one["kernel"] == name and "error" in one]
            most = max((one["error"] for one in mine), default=0.0)
            typer.echo(f"{name:<24} {len(mine):>4} cases, largest difference {most:.1e}")
    raise typer.Exit(1 if bad else 0)


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
    Not yet run on a device.
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
    head = f"{'kernel':<42} {'calls':>5} {'us a call':>10} {'ordered':>10} {'decides':<14}"
    typer.echo(f"{head} {'DMA':>5} {'HBM':>5} {'MB a step':>10}")
    for one in found:
        call = f"{one['function']} {'x'.join(map(str, one['shape']))}"
        typer.echo(
            f"{call:<42} {one['calls']:>5} {one['seconds'] * 1e6:>10.1f} "
            f"{one['scheduled_seconds'] * 1e6:>10.1f} {one['bound']:<14} "
            f"{one['dma_share']:>5.0%} {one['hbm_share']:>5.0%} {one['step_bytes'] / 1e6:>10.2f}"
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
    as_json: Json = False,
) -> None:
    """Decode steps of XLA's graphs beside those with kernels: bytes, and estimated times. Takes minutes.

    Needs torch_xla, as `outcrop compile lower` does, and no device.
    """
    from outcrop.cli.compile.models import model_config
    from outcrop_compile.hlo.environment import LoweringFailed, find_python
    from outcrop_compile.kernels.table import rows as made

    _need_simulator()
    degrees, batches, contexts = _TABLE
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
    typer.echo(f"{name} in {dtype}: GB of one rank in a decode step, what KV is of them, and ms\n")
    names = "tp rows context XLA attention fewer all fewer KV fewer XLA slow attention ordered all ordered"
    columns = names.split()
    typer.echo(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in found:
        some, every = row.attention, row.every
        before, after = row.kv
        numbers = [
            *(
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
