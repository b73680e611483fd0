"""`outcrop serve`: settings in, a running server out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from outcrop.engine.config import DEFAULT_KV_MEMORY
from outcrop.settings import SettingsError, load_settings

EPILOG = (
    "What is left out here is taken from the environment (OUTCROP_PORT=9000), then from the configuration "
    r"file (port = 9000). The file can also name several models, each a [\[models]] table with path, id, "
    'aliases and the model options above (kv_memory = "4G").'
)


def _model(metavar: str, text: str, default: str = "") -> Any:
    return _option("Model", metavar, text, default)


def _server(metavar: str, text: str, default: str = "") -> Any:
    return _option("Server", metavar, text, default)


def _switch(name: str, text: str) -> Any:
    """An option without a value: given, it is true; left out, it may yet be set elsewhere."""
    return typer.Option(name, help=text, rich_help_panel="Server")


def _option(panel: str, metavar: str, text: str, default: str) -> Any:
    """An option's help. One that is left out is None, for it may yet be set elsewhere: so its default is
    part of the text."""
    return typer.Option(
        metavar=metavar, help=f"{text} (default: {default})" if default else text, rich_help_panel=panel
    )


Given = str | None
"""A value as it was typed: `load_settings` checks it, like those from every other source."""


def serve(
    model: Annotated[Given, _model("PATH", "Hugging Face or Meta checkpoint folder, or GGUF file.")] = None,
    id: Annotated[Given, _model("ID", "Model id it answers to. Left out: it answers to every id.")] = None,
    backend: Annotated[
        Given, _model("NAME", "cpu, neuron (--artifact), or fake, which needs no weights.", "cpu")
    ] = None,
    artifact: Annotated[
        Given, _model("FOLDER", "What `outcrop compile build` made, for backend neuron. Needs no --model.")
    ] = None,
    cores: Annotated[
        Given, _model("RANGE", "NeuronCores of backend neuron, such as 0-7.", "the machine's first")
    ] = None,
    dtype: Annotated[
        Given,
        _model("NAME", "Of weights: auto, float32, bfloat16, int8, or int4 (GGUF's own 4 bits).", "auto"),
    ] = None,
    weight_cache: Annotated[
        Given,
        _model("FOLDER", "Where packed weights are kept for the next start, or off.", "~/.cache/outcrop"),
    ] = None,
    kernels: Annotated[Given, _model("NAME", "auto, native (C++) or torch.", "auto")] = None,
    max_model_len: Annotated[
        Given,
        _model("TOKENS", "Context: prompt and answer together.", "what the model and the memory allow"),
    ] = None,
    kv_memory: Annotated[
        Given, _model("SIZE", "Memory for the KV cache, such as 4G.", f"{DEFAULT_KV_MEMORY >> 20}M")
    ] = None,
    max_rows: Annotated[Given, _model("N", "Requests computed side by side.", "32")] = None,
    policy: Annotated[
        Given,
        _model(
            "NAME",
            "What new prompts do to running answers: interleave, prefill-first or decode-first.",
            "interleave",
        ),
    ] = None,
    speculative_tokens: Annotated[
        Given, _model("N", "Tokens of an answer to guess from what it repeats, and verify in one step.", "0")
    ] = None,
    threads: Annotated[Given, _model("N", "CPU threads.", "one a core")] = None,
    host: Annotated[Given, _server("ADDRESS", "Address to listen on.", "127.0.0.1")] = None,
    port: Annotated[Given, _server("PORT", "Port to listen on; 0 picks a free one.", "8080")] = None,
    region: Annotated[Given, _server("NAME", "AWS region that ARNs in answers name.", "us-east-1")] = None,
    max_inflight: Annotated[
        Given, _server("N", "Calls in progress beyond which new ones are throttled.", "256")
    ] = None,
    drain_seconds: Annotated[
        Given, _server("SECONDS", "How long calls in progress may go on at shutdown.", "30")
    ] = None,
    step_timeout: Annotated[
        Given, _server("SECONDS", "Silence after which an engine is taken for hung and restarted.", "120")
    ] = None,
    auth: Annotated[
        Given,
        _server(
            "MODE",
            "Whether callers need a key: required, off, or auto, which is off on loopback alone.",
            "auto",
        ),
    ] = None,
    tls_certificate: Annotated[
        Given, _server("FILE", "Certificate, PEM; with it the server speaks HTTPS.")
    ] = None,
    tls_key: Annotated[
        Given, _server("FILE", "Key of the certificate, PEM, where it is not in the same file.")
    ] = None,
    strict: Annotated[
        bool | None, _switch("--strict", "Refuse what Bedrock's own Llama models refuse, in its words.")
    ] = None,
    fault_injection: Annotated[
        bool | None, _switch("--fault-injection", "Let calls ask for errors, delays and broken streams.")
    ] = None,
    seed: Annotated[
        Given, _server("N", "Seed of calls that give none: the same call, the same answer.")
    ] = None,
    prompts: Annotated[
        Given, _server("FOLDER", "Stored prompts that calls may name by their ARN, one JSON file each.")
    ] = None,
    log_level: Annotated[Given, _server("NAME", "debug, info, warning or error.", "info")] = None,
    config: Annotated[
        Path | None, _server("FILE", "Configuration file, TOML. Also OUTCROP_CONFIG=FILE.")
    ] = None,
) -> None:
    """Serve a model until Ctrl-C or SIGTERM.

    For example: outcrop serve --model ./Llama-3.1-8B-Instruct --kv-memory 4G
    """
    model_options = _given(
        path=model, id=id, backend=backend, artifact=artifact, cores=cores, dtype=dtype,
        weight_cache=weight_cache, kernels=kernels,
        max_model_len=max_model_len, kv_memory=kv_memory, max_rows=max_rows, policy=policy, threads=threads,
        speculative_tokens=speculative_tokens,
    )  # fmt: skip
    server_options = _given(
        host=host, port=port, region=region, max_inflight=max_inflight, drain_seconds=drain_seconds,
        step_timeout=step_timeout, tls_certificate=tls_certificate, tls_key=tls_key,
        strict=strict, fault_injection=fault_injection, seed=seed, prompts=prompts,
        log_level=log_level,
    )  # fmt: skip
    sections = {} if auth is None else {"auth": {"mode": auth}}
    try:
        settings = load_settings(config=config, model=model_options, server=server_options | sections)
    except SettingsError as error:
        fail(str(error))
    # The server's own imports take a while; a wrong setting is answered without them.
    from outcrop.server import run

    raise typer.Exit(run(settings))


def _given(**options: str | bool | None) -> dict[str, str | bool]:
    return {name: value for name, value in options.items() if value is not None}


def fail(message: str) -> NoReturn:
    """Say what is wrong, each line on its own, and exit with status 2."""
    for line in message.splitlines():
        typer.secho(f"outcrop: {line}", fg=typer.colors.RED, err=True)
    raise typer.Exit(2)
