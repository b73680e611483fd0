"""`outcrop serve`: settings in, a running server out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from outcrop.settings import SettingsError, load_settings

_MODEL = "Model"
_SERVER = "Server"


def serve(
    model: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint: a Hugging Face or Meta directory, or a GGUF file.", rich_help_panel=_MODEL
        ),
    ] = None,
    id: Annotated[  # the option is called --id
        str | None,
        typer.Option(
            help="Bedrock model id it answers to. Left out: it answers to every id.", rich_help_panel=_MODEL
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="cpu, or fake (no weights).", rich_help_panel=_MODEL)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=_MODEL)
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Context, prompt and answer, in tokens.", rich_help_panel=_MODEL)
    ] = None,
    kv_memory: Annotated[
        str | None, typer.Option(help="Memory for the KV cache, such as 512M or 4G.", rich_help_panel=_MODEL)
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(help="Requests running at once.", rich_help_panel=_MODEL)
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="interleave, prefill-first or decode-first.", rich_help_panel=_MODEL),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; left out: one a core.", rich_help_panel=_MODEL)
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [127.0.0.1]", rich_help_panel=_SERVER)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 picks one. [8080]", rich_help_panel=_SERVER)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", rich_help_panel=_SERVER)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="outcrop.toml: several models, ids and aliases.", rich_help_panel=_SERVER),
    ] = None,
) -> None:
    """Serve a model. For example:

    outcrop serve --model ./Llama-3.1-8B-Instruct --id meta.llama3-1-8b-instruct-v1:0
    """
    model_options = _given(
        path=model, id=id, backend=backend, dtype=dtype, max_model_len=max_model_len, kv_memory=kv_memory,
        max_rows=max_rows, policy=policy, threads=threads,
    )  # fmt: skip
    try:
        settings = load_settings(
            config=config, model=model_options, server=_given(host=host, port=port, log_level=log_level)
        )
    except SettingsError as error:
        fail(str(error))
    # The server's own imports take a while; a wrong setting is answered without them.
    from outcrop.server import run

    raise typer.Exit(run(settings))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def fail(message: str) -> None:
    """Say what is wrong and exit with status 2."""
    typer.secho(f"outcrop: {message}", fg=typer.colors.RED, err=True)
    raise typer.Exit(2)
