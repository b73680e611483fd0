"""`outcrop serve`: settings in, a running server out."""

from __future__ import annotations

import functools
from typing import NoReturn

import typer

from outcrop.cli import serve_options as options
from outcrop.settings import SettingsError, load_settings

EPILOG = (
    "What is left out here is taken from the environment (OUTCROP_PORT=9000), then from the configuration "
    r"file (port = 9000). The file can also name several models, each a [\[models]] table with path, id, "
    'aliases and the model options above (kv_memory = "4G").'
)


def serve(
    model: options.Model = None,
    id: options.Id = None,
    backend: options.Backend = None,
    artifact: options.Artifact = None,
    cores: options.Cores = None,
    replicas: options.Replicas = None,
    dtype: options.Dtype = None,
    weight_cache: options.WeightCache = None,
    kernels: options.Kernels = None,
    max_model_len: options.MaxModelLen = None,
    kv_memory: options.KvMemory = None,
    max_rows: options.MaxRows = None,
    policy: options.Policy = None,
    speculative_tokens: options.SpeculativeTokens = None,
    threads: options.Threads = None,
    python: options.Python = None,
    url: options.Url = None,
    served_name: options.ServedName = None,
    api_key_env: options.ApiKeyEnv = None,
    engine_args: options.EngineArgs = None,
    host: options.Host = None,
    port: options.Port = None,
    region: options.Region = None,
    max_inflight: options.MaxInflight = None,
    drain_seconds: options.DrainSeconds = None,
    notice_seconds: options.NoticeSeconds = None,
    step_timeout: options.StepTimeout = None,
    auth: options.Auth = None,
    tls_certificate: options.TlsCertificate = None,
    tls_key: options.TlsKey = None,
    strict: options.Strict = None,
    fault_injection: options.FaultInjection = None,
    inspect: options.Inspect = None,
    seed: options.Seed = None,
    prompts: options.Prompts = None,
    state: options.State = None,
    log_level: options.LogLevel = None,
    config: options.Config = None,
) -> None:
    """Serve a model until Ctrl-C or SIGTERM. SIGHUP: read the configuration again, and bring changed models
    into service without a failed request.

    For example: outcrop serve --model ./Llama-3.1-8B-Instruct --kv-memory 4G
    """
    model_options = _given(
        path=model, id=id, backend=backend, artifact=artifact, cores=cores, replicas=replicas,
        dtype=dtype, weight_cache=weight_cache, kernels=kernels,
        max_model_len=max_model_len, kv_memory=kv_memory, max_rows=max_rows, policy=policy, threads=threads,
        speculative_tokens=speculative_tokens, python=python, url=url, served_name=served_name,
        api_key_env=api_key_env, engine_args=engine_args,
    )  # fmt: skip
    server_options = _given(
        host=host, port=port, region=region, max_inflight=max_inflight, drain_seconds=drain_seconds,
        notice_seconds=notice_seconds, step_timeout=step_timeout,
        tls_certificate=tls_certificate, tls_key=tls_key,
        strict=strict, fault_injection=fault_injection, seed=seed, prompts=prompts, state=state,
        inspect=inspect, log_level=log_level,
    )  # fmt: skip
    sections = {} if auth is None else {"auth": {"mode": auth}}
    load = functools.partial(
        load_settings, config=config, model=model_options, server=server_options | sections
    )
    try:
        settings = load()
    except SettingsError as error:
        fail(str(error))
    # The server's own imports take a while; a wrong setting is answered without them.
    from outcrop.server import run

    raise typer.Exit(run(settings, load))


def _given(**options: str | bool | None) -> dict[str, str | bool]:
    return {name: value for name, value in options.items() if value is not None}


def fail(message: str) -> NoReturn:
    """Say what is wrong, each line on its own, and exit with status 2."""
    for line in message.splitlines():
        typer.secho(f"outcrop: {line}", fg=typer.colors.RED, err=True)
    raise typer.Exit(2)
