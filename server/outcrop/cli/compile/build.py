"""`outcrop compile build`: a checkpoint's artifact for an instance.

What the command works with is imported when it runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from outcrop import __version__
from outcrop.cli.compile import options
from outcrop.cli.compile.progress import failing, reporting
from outcrop.cli.serve import fail


def build(
    model: Annotated[str, options.option("PATH", "Hugging Face or Meta checkpoint folder, or GGUF file.")],
    instance: options.InstanceType,
    out: Annotated[Path, options.option("FOLDER", "Where to put the artifact.")],
    tp: options.Degree = None,
    max_model_len: options.MaxModelLen = None,
    batch: options.Batch = 32,
    block_size: options.BlockSize = 32,
    slots: options.Slots = False,
    dtype: options.DtypeName = "bfloat16",
    speculative_tokens: options.SpeculativeTokens = 0,
    reserve: options.Reserve = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Compilations at a time (default: what fits into memory)."),
    ] = None,
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Build with packages of no SDK that Outcrop is made for.")
    ] = False,
    unlinted: Annotated[
        bool, typer.Option("--unlinted", help="Compile graphs that `outcrop compile lint` finds wrong.")
    ] = False,
    compiler_flags: Annotated[str, options.option("FLAGS", "More flags for neuronx-cc.")] = "",
) -> None:
    """Compile a model for an instance. Any x86 machine with the Neuron SDK will do, without a Neuron device.
    Cut off, run it again: it goes on with what is missing.

    For example: outcrop compile build --model ./Llama-3.1-8B-Instruct --instance inf2.8xlarge --out llama-8b
    """
    from outcrop.cli.compile.plan_report import print_refusal
    from outcrop_compile.builder import CompilationFailed, NxdCompiler, Options
    from outcrop_compile.builder import build as build_artifact
    from outcrop_compile.checkpoint import open_checkpoint
    from outcrop_compile.plan import PlanRefused, make_plan

    with failing():
        request = options.plan_request(
            model, instance, tp=tp, max_model_len=max_model_len, batch=batch, block_size=block_size,
            slots=slots, dtype=dtype, speculative_tokens=speculative_tokens, reserve=reserve,
        )  # fmt: skip
    try:
        plan = make_plan(request)
    except PlanRefused as refusal:
        print_refusal(refusal)
        raise typer.Exit(1) from None
    with failing():
        checkpoint = open_checkpoint(Path(model))
        flags = tuple(shlex.split(compiler_flags))
        chosen = Options(model, __version__, workers, unpinned, unlinted, flags)
        try:
            with reporting() as report:
                artifact = build_artifact(plan, checkpoint, out, NxdCompiler(), chosen, report)
        except CompilationFailed as failure:
            fail(str(failure))
    manifest = artifact.manifest
    typer.echo(f"{manifest.key[:12]} is in {out} ({manifest.size() / 2**30:.1f} GiB, {plan.graphs} graphs)")
    typer.echo(f"serve it: outcrop serve --backend neuron --artifact {shlex.quote(str(out))}")
    typer.echo(f"share it: outcrop compile push {shlex.quote(str(out))} --store STORE")
