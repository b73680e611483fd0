"""`outcrop compile lower`: every graph of a model as HLO, checked, without a Neuron device or SDK.

What the command works with is imported when it runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from outcrop.cli.compile import options
from outcrop.cli.compile.models import model_config
from outcrop.cli.compile.progress import failing
from outcrop.cli.serve import fail

if TYPE_CHECKING:
    from outcrop_compile.hlo.record import Sizes
    from outcrop_compile.hlo.traffic import Traffic
    from outcrop_compile.hlo.worker import Lowered, Request
    from outcrop_compile.hlo_lint.finding import Finding

_SEQUENCES = 8
"""Of the longest length, for which there are KV blocks unless it is said how many there are to be."""


def lower(
    model: Annotated[
        str, options.option("MODEL", "Checkpoint, or a name such as Llama-3.1-8B or its Bedrock id.")
    ],
    out: Annotated[Path, options.option("DIR", "Folder for the graphs.")],
    tp: Annotated[int, options.option("N", "NeuronCores that share the model.")] = 1,
    layers: Annotated[int | None, options.option("N", "Only the first N layers (default: all).")] = None,
    max_model_len: Annotated[int, options.option("TOKENS", "Context: prompt and answer.")] = 8192,
    batch: options.Batch = 32,
    block_size: options.BlockSize = 32,
    num_blocks: Annotated[
        int | None, options.option("N", f"KV blocks (default: for {_SEQUENCES} of the longest sequences).")
    ] = None,
    dtype: options.DtypeName = "bfloat16",
    speculative_tokens: options.SpeculativeTokens = 0,
    only: Annotated[
        list[str] | None,
        options.option("TEXT", "Only graphs with this in their name; may be given repeatedly."),
    ] = None,
    kernels: Annotated[
        str, options.option("NAMES", "NKI kernels to call, by stand-ins (`outcrop kernels list`).")
    ] = "none",
    indirect_dma: Annotated[
        bool, typer.Option("--indirect-dma", help="Kernels that gather by indices.")
    ] = False,
    run: Annotated[
        bool,
        typer.Option("--run", help="Run each with random weights, and compare with the model."),
    ] = False,
    python: Annotated[
        str | None,
        options.option("PATH", "Interpreter that has torch_xla (default: this one, or .venv-xla's)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each graph.")] = False,
) -> None:
    """Lower every graph to HLO, check it, and say how many bytes it moves beside the least possible.

    Exit status 1 if there is a finding, or if a graph does not compute what the model does.

    For example: outcrop compile lower --model Llama-3.1-8B --layers 2 --tp 8 --out ./hlo
    """
    from outcrop_compile.artifact.kernels import kernel_names
    from outcrop_compile.hlo.environment import LoweringFailed, find_python
    from outcrop_compile.hlo.environment import lower as lower_graphs
    from outcrop_compile.hlo.record import Sizes
    from outcrop_compile.tensor_parallel import divide
    from outcrop_kernels.nki.catalogue import chosen_kernels

    with failing():
        _, config = model_config(model)
        if layers is not None and not 1 <= layers <= config.num_layers:
            raise ValueError(f"--layers {layers}: the model has {config.num_layers}")
        config = replace(config, num_layers=layers or config.num_layers)
        divide(config, tp)
        sizes = Sizes(
            config=config,
            dtype=options.dtype_of(dtype),
            tp=tp,
            block_size=block_size,
            num_blocks=num_blocks or _SEQUENCES * -(-max_model_len // block_size),
            max_rows=batch,
            max_positions=max_model_len,
            kernels=kernel_names(chosen_kernels(kernels), gather=indirect_dma),
        )
        if run and sizes.kernels:
            raise ValueError("--run: XLA on a CPU has no NKI kernels; leave out --run or --kernels")
        request = _request(sizes, speculative_tokens, only or [], out, run)
    bad = 0
    try:
        for place, done in enumerate(lower_graphs(request, find_python(python)), 1):
            bad += _report(done, f"{place}/{len(request.graphs)}", as_json)
    except LoweringFailed as error:
        fail(str(error))
    if not as_json:
        typer.echo(f"{len(request.graphs)} graphs in {out}, {bad} of them with something wrong")
    raise typer.Exit(1 if bad else 0)


def _request(sizes: Sizes, guesses: int, only: list[str], out: Path, run: bool) -> Request:
    from outcrop_compile.graph import graphs_of
    from outcrop_compile.hlo.worker import Request
    from outcrop_compile.plan.buckets import neuron_buckets
    from outcrop_compile.tensor_parallel import divide

    buckets = neuron_buckets(
        divide(sizes.config, sizes.tp),
        max_rows=sizes.max_rows,
        max_model_len=sizes.max_positions,
        block_size=sizes.block_size,
        guesses=guesses,
    )
    graphs = [graph for graph in graphs_of(buckets) if not only or any(part in graph.tag for part in only)]
    if not graphs:
        raise ValueError(
            f"--only {' '.join(only)}: no graph is called that; without it, all of them are made"
        )
    return Request(
        sizes=sizes,
        graphs=tuple((graph.bucket, graph.variant) for graph in graphs),
        out=str(out.absolute()),
        run=run,
    )


def _report(done: Lowered, place: str, as_json: bool) -> bool:
    """Print what came of a graph. Returns whether anything is wrong with it."""
    from outcrop.cli.compile.lint import finding_as_json, print_findings
    from outcrop_compile.hlo.module import HloModule
    from outcrop_compile.hlo.record import read_record, record_path
    from outcrop_compile.hlo.traffic import traffic
    from outcrop_compile.hlo_lint.linter import lint_module

    path = Path(done.file)
    module = HloModule(path.read_bytes())
    found = list(lint_module(module, done.file))
    moved = traffic(module, read_record(record_path(path)))
    if as_json:
        typer.echo(_as_json(done, found, moved, finding_as_json))
        sys.stdout.flush()
    else:
        typer.echo(f"{place:>7}  {done.tag:<26} {_words(done, len(found), moved)}")
        print_findings(found)
    return bool(found) or (done.compared is not None and not done.compared.good)


def _words(done: Lowered, findings: int, moved: Traffic) -> str:
    least = f"{moved.ratio:5.2f} of the least ({moved.roofline / 1e6:.1f})"
    beside = f"beside {moved.kernels} calls of kernels" if moved.kernels else least
    parts = [f"{moved.counted / 1e6:9.1f} MB moved, {beside}", f"{findings} findings"]
    if (ran := done.compared) is not None:
        near = f" and {ran.near} within a rounding" if ran.near else ""
        outcome = "as" if ran.good else "NOT as"
        parts.append(f"{outcome} in eager mode: {ran.equal}{near} of {ran.tokens} tokens")
        parts.append(f"KV within {ran.error:.1e}")
    return ", ".join(parts)


def _as_json(done: Lowered, found: list[Finding], moved: Traffic, finding_as_json: Any) -> str:
    ran = done.compared
    value = {
        "tag": done.tag,
        "file": done.file,
        "seconds": done.seconds,
        "findings": [finding_as_json(one) for one in found],
        "bytes": {
            "counted": moved.counted,
            "weights_and_kv": moved.read,
            "activations": moved.activations,
            "ratio": None if moved.kernels else round(moved.ratio, 4),
            "by_kind": moved.by_kind,
            "kernel_calls": moved.kernels,
        },
        "compared": None if ran is None else msgspec.to_builtins(ran) | {"good": ran.good},
    }
    return msgspec.json.encode(value).decode()
