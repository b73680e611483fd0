"""The options of `outcrop simulate`, and what is done with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outcrop.cli.compile import options
from outcrop.cli.serve import fail
from outcrop.cli.simulate.choices import (
    DEFAULT_REQUESTS,
    GridChoice,
    LoadChoice,
    base_request,
    grid_of,
    hourly_prices,
    load_of,
)

if TYPE_CHECKING:
    from outcrop.simulate.slo import Slo
    from outcrop.simulate.step_time import StepModel
    from outcrop.simulate.sweep import Grid, Load, Loads
    from outcrop_compile.plan import PlanRequest

app = typer.Typer(
    help="Simulate serving on an instance: latency, throughput, cost. The scheduler is the real one; how "
    "long steps take is calculated (`outcrop simulate calibration` says how well).",
    no_args_is_help=True,
)


InstanceType = Annotated[
    str, options.option("TYPE,…", "Such as inf2.48xlarge; with --sweep several, or all.")
]
Tp = Annotated[
    str | None, options.option("N,…", "NeuronCores that share the model (default: what suits both).")
]
Replicas = Annotated[
    str | None, options.option("N,…", "Of an instance (default: as many as its cores are enough for).")
]
Batch = Annotated[str, options.option("N,…", "Requests computed side by side by a replica.")]
Chunk = Annotated[
    str | None,
    options.option("TOKENS,…", "Widest prefill step (default: the plan's): less makes shorter stalls."),
]
Dtype = Annotated[str, options.option("NAME,…", "bfloat16 or int8, which is of weights.")]
PolicyNames = Annotated[
    str,
    options.option(
        "NAME,…", "paced, interleave, prefill-first, decode-first; vllm-neuron is that plug-in's."
    ),
]
Rate = Annotated[float | None, options.option("RPS", "Requests that arrive a second, at random (Poisson).")]
Users = Annotated[
    int | None, options.option("N", "A closed loop: so many users, each with one request at a time.")
]
TraceFile = Annotated[
    Path | None,
    options.option(
        "FILE",
        "CSV with the columns of Azure's LLM traces, of BurstGPT, or of your own, which may be JSONL.",
    ),
]
Burstiness = Annotated[float, options.option("SHAPE", "With --rate: 1 is Poisson, 0.25 comes in bursts.")]
Think = Annotated[float, options.option("SECONDS", "With --users: from an answer to the next request.")]
Requests = Annotated[
    int | None, options.option("N", f"How many (default: {DEFAULT_REQUESTS}, or all of the trace).")
]
Prompt = Annotated[int, typer.Option("--in", metavar="TOKENS", help="Prompt of the median request.")]
Output = Annotated[int, typer.Option("--out", metavar="TOKENS", help="Answer of the median request.")]
PromptSpread = Annotated[
    float, typer.Option("--in-spread", metavar="SIGMA", help="Of the logarithm of prompts: 0 for all alike.")
]
OutputSpread = Annotated[
    float, typer.Option("--out-spread", metavar="SIGMA", help="Of the logarithm of answers.")
]
Speed = Annotated[float, options.option("FACTOR", "With --trace: 2 makes its requests come twice as fast.")]
SloText = Annotated[
    str, options.option("SLO", "ttft=MS,tpot=MS[,share=PART], or mlperf-8b-server, mlperf-8b-interactive, …")
]
PurchaseOption = Annotated[
    str, typer.Option("--option", metavar="HOW", help="on-demand, reserved-1yr, reserved-3yr or spot.")
]
Price = Annotated[
    float | None, options.option("USD", "Of an hour of the instance, instead of the price files.")
]
Prices = Annotated[Path | None, options.option("FILE", "Prices of your own, JSON or TOML.")]
Parameters = Annotated[
    Path | None,
    options.option("FILE", "Step times fitted to your own measurements (see `calibration --write`)."),
]
MostInstances = Annotated[int, options.option("N", "With --sweep: of one kind, at most.")]
Plot = Annotated[
    Path | None, options.option("FILE", "With --sweep: the frontier, .svg or .html (needs outcrop\\[plots]).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def simulate(
    context: typer.Context,
    model: options.Model = "Llama-3.1-8B",
    instance: InstanceType = "inf2.48xlarge",
    tp: Tp = None,
    replicas: Replicas = None,
    dtype: Dtype = "bfloat16",
    batch: Batch = "32",
    chunk: Chunk = None,
    policy: PolicyNames = "paced",
    max_model_len: Annotated[
        int | None, options.option("TOKENS", "Context (default: 8192, or the model's).")
    ] = None,
    block_size: Annotated[int, options.option("TOKENS", "Of a KV block.")] = 32,
    rate: Rate = None,
    users: Users = None,
    trace: TraceFile = None,
    burstiness: Burstiness = 1.0,
    think: Think = 0.0,
    requests: Requests = None,
    prompt: Prompt = 1000,
    output: Output = 250,
    prompt_spread: PromptSpread = 0.8,
    output_spread: OutputSpread = 0.6,
    speed: Speed = 1.0,
    seed: Annotated[int, options.option("N", "The same one makes the same run, byte for byte.")] = 1,
    slo: SloText = "mlperf-8b-server",
    option: PurchaseOption = "on-demand",
    region: Annotated[str, options.option("REGION", "Whose prices.")] = "us-east-1",
    price: Price = None,
    prices: Prices = None,
    parameters: Parameters = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Try all combinations; find the cheapest.")] = False,
    most_instances: MostInstances = 64,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """For example: outcrop simulate --instance inf2.48xlarge --rate 4 --in 1500 --out 250"""
    from outcrop.simulate.slo import parse_slo
    from outcrop.simulate.step_time import step_model

    if context.invoked_subcommand is not None:
        return
    try:
        grid = grid_of(GridChoice(instance, tp, replicas, dtype, batch, chunk, policy))
        base = base_request(model, grid, max_model_len, block_size)
        choice = LoadChoice(
            rate, users, trace, burstiness, think, requests, prompt, output, prompt_spread, output_spread,
            speed, seed,
        )  # fmt: skip
        load = load_of(choice, base.length // 2)
        promise = parse_slo(slo)
        hourly, said = hourly_prices(grid, price, option, region, prices)
        steps = step_model(parameters)
        if not sweep:
            _check_single(grid, plot)
        elif most_instances < 1:
            raise ValueError(f"--most-instances {most_instances}: there has to be one at least")
    except ValueError as error:
        fail(str(error))
    if said:
        more = f" (and {len(said) - 1} more like it)" if len(said) > 1 else ""
        typer.echo(f"outcrop: {said[0]}{more}", err=True)
    if sweep:

        def loads(instances: int) -> Load:
            return load if trace is not None else load_of(choice, base.length // 2, instances)

        _sweep(base, grid, loads, promise, steps, hourly, most_instances, plot, as_json=as_json)
    else:
        _run(base, grid, load, promise, steps, hourly, as_json=as_json)


def _check_single(grid: Grid, plot: Path | None) -> None:
    if len(grid) > 1:
        raise ValueError(f"the options name {len(grid)} combinations; --sweep tries several")
    if plot is not None:
        raise ValueError("--plot draws what --sweep tried; there is no --sweep")


def _run(
    base: PlanRequest,
    grid: Grid,
    load: Load,
    slo: Slo,
    steps: StepModel,
    hourly: dict[str, float],
    *,
    as_json: bool,
) -> None:
    from outcrop.cli.compile.plan_report import print_refusal
    from outcrop.cli.simulate.progress import progress_line
    from outcrop.cli.simulate.report import print_run, run_as_json
    from outcrop.simulate.figures import figures
    from outcrop.simulate.fleet import simulate as run
    from outcrop.simulate.machine import make_machine
    from outcrop_compile.plan import PlanRefused

    try:
        machine = make_machine(base, grid.servings[0], steps, replicas=grid.replicas[0], chunk=grid.chunks[0])
    except PlanRefused as refusal:
        print_refusal(refusal)
        raise typer.Exit(1) from None
    except ValueError as error:
        fail(str(error))
    with progress_line(sys.stderr) as show:
        done = run(machine, load, progress=lambda fraction: show("simulating", fraction))
    found = figures(done, slo, hourly[base.instance.name])
    if as_json:
        typer.echo(json.dumps(run_as_json(done, found, slo), indent=2))
    else:
        print_run(done, found, slo)


def _sweep(
    base: PlanRequest,
    grid: Grid,
    loads: Loads,
    slo: Slo,
    steps: StepModel,
    hourly: dict[str, float],
    most_instances: int,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    from outcrop.cli.simulate.progress import progress_line
    from outcrop.cli.simulate.report import print_sweep, sweep_as_json
    from outcrop.simulate.sweep import sweep

    with progress_line(sys.stderr) as show:
        found = sweep(base, grid, loads, slo, steps, hourly, most_instances=most_instances, progress=show)
    if plot is not None:
        from outcrop.simulate.plot import save_frontier
        from outcrop.svg import NoMatplotlib

        try:
            save_frontier(found, plot, f"{base.name}: {slo}")
        except (NoMatplotlib, ValueError, OSError) as error:
            fail(str(error))
    if as_json:
        typer.echo(json.dumps(sweep_as_json(found, slo), indent=2))
    else:
        print_sweep(found, slo)
    if not found.candidates:
        raise typer.Exit(1)


@app.command()
def calibration(
    served: Annotated[
        bool, typer.Option("--served/--no-served", help="Also simulate the published closed loops (seconds).")
    ] = True,
    write: Annotated[Path | None, options.option("FILE", "Write the fitted parameters.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit the step times to half of the published measurements, and show how far off they are on the
    others."""
    from outcrop.cli.simulate.calibration_report import calibration_as_json, print_calibration
    from outcrop.simulate.calibration import calibrate, write_parameters
    from outcrop.simulate.served import serve_anchors

    found = calibrate()
    loops = serve_anchors() if served else ()
    if write is not None:
        try:
            write_parameters(found.prices, write)
        except OSError as error:
            fail(f"--write {write}: {error.strerror or error}")
    if as_json:
        typer.echo(json.dumps(calibration_as_json(found, loops), indent=2))
    else:
        print_calibration(found, loops)
