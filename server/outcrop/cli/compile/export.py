"""`outcrop compile export`: a folder for another engine, made by that engine's own exporter.

What the command works with is imported when it runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from outcrop.cli.compile import options
from outcrop.cli.compile.progress import failing
from outcrop.cli.serve import fail

EXPORTERS = ("optimum-neuron",)


def export(
    model: Annotated[str, options.option("MODEL", "Checkpoint folder, or its id on the Hugging Face hub.")],
    instance: options.InstanceType,
    out: Annotated[Path, options.option("FOLDER", "Where to put what is exported.")],
    tp: Annotated[int, typer.Option(min=1, metavar="N", help="NeuronCores that share the model.")],
    with_: Annotated[
        str, typer.Option("--with", metavar="NAME", help="Whose exporter: optimum-neuron.")
    ] = EXPORTERS[0],
    max_model_len: Annotated[
        int, typer.Option(min=16, metavar="TOKENS", help="Context: prompt and answer.")
    ] = 4096,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Requests computed side by side.")] = 4,
    python: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="OUTCROP_OPTIMUM_PYTHON",
            help="Interpreter of the environment that has the exporter (default: the one that runs this).",
        ),
    ] = None,
) -> None:
    """Export a model with another engine's exporter, for `outcrop serve --backend vllm`.

    For example: outcrop compile export --with optimum-neuron --model ./Llama-3.1-8B-Instruct
    --instance inf2.48xlarge --tp 8 --out llama-8b-optimum --python /opt/optimum/bin/python
    """
    from outcrop.environments.environment import ENVIRONMENTS
    from outcrop_compile.optimum_neuron.export import (
        ExportFailed,
        Wanted,
        export_command,
        installed,
        run_export,
    )
    from outcrop_compile.optimum_neuron.exported import read_exported

    if with_ not in EXPORTERS:
        fail(f"--with {with_}: there is {', '.join(EXPORTERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        fail(f"--out {out}: something is there already; name a new folder")
    interpreter = python or Path(sys.executable)
    install = shlex.join([str(interpreter), "-m", "pip", *ENVIRONMENTS[with_].arguments()])
    with failing():
        wanted = Wanted(model, out, instance.partition(".")[0], tp, batch, max_model_len)
        try:
            versions = installed(interpreter, install)
            typer.echo(", ".join(f"{name} {version}" for name, version in versions.items()), err=True)
            run_export(export_command(interpreter, wanted), lambda line: typer.echo(line, err=True))
        except ExportFailed as failure:
            fail(str(failure))
        found = read_exported(out)
    typer.echo(f"{found.model} is in {out} (tp {found.tp}, {found.batch} requests of {found.length} tokens)")
    command = ["outcrop", "serve", "--backend", "vllm", "--model", str(out), "--python", str(interpreter)]
    typer.echo(f"serve it: {shlex.join(command)}")
