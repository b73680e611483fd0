"""The options of `outcrop serve`, under the names of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from outcrop.engine.config import DEFAULT_KV_MEMORY


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

Model = Annotated[Given, _model("PATH", "Hugging Face or Meta checkpoint folder, or GGUF file.")]
Id = Annotated[Given, _model("ID", "Model id it answers to. Left out: it answers to every id.")]
Backend = Annotated[
    Given,
    _model(
        "NAME",
        "cpu, neuron (--artifact), vllm (--python/--url), transformers-neuronx (end of support), or fake, "
        "without weights.",
        "cpu",
    ),
]
Artifact = Annotated[
    Given, _model("FOLDER", "What `outcrop compile build` made, for backend neuron. Needs no --model.")
]
Cores = Annotated[
    Given, _model("RANGE", "NeuronCores of backend neuron, of all replicas: 0-7.", "the machine's first")
]
Replicas = Annotated[
    Given, _model("N", "Engine processes that share the requests; sizes below are of each.", "1")
]
Dtype = Annotated[
    Given,
    _model("NAME", "Of weights: auto, float32, bfloat16, int8, or int4 (GGUF's own 4 bits).", "auto"),
]
WeightCache = Annotated[
    Given,
    _model("FOLDER", "Where packed weights are kept for the next start, or off.", "~/.cache/outcrop"),
]
Kernels = Annotated[Given, _model("NAME", "auto, native (C++) or torch.", "auto")]
MaxModelLen = Annotated[
    Given,
    _model("TOKENS", "Context: prompt and answer together.", "what the model and the memory allow"),
]
KvMemory = Annotated[
    Given, _model("SIZE", "Memory for the KV cache, such as 4G.", f"{DEFAULT_KV_MEMORY >> 20}M")
]
MaxRows = Annotated[Given, _model("N", "Requests computed side by side.", "32")]
Policy = Annotated[
    Given,
    _model(
        "NAME",
        "What new prompts do to running answers: auto, interleave, paced, prefill-first or decode-first.",
        "auto",
    ),
]
SpeculativeTokens = Annotated[
    Given, _model("N", "Tokens of an answer to guess from what it repeats, and verify in one step.", "0")
]
Threads = Annotated[Given, _model("N", "CPU threads.", "one a core")]
Python = Annotated[
    Given, _model("FILE", "Interpreter that has vLLM, for backend vllm.", "the one that runs this")
]
Url = Annotated[Given, _model("URL", "A vLLM server that runs already, for backend vllm.")]
ServedName = Annotated[Given, _model("NAME", "The server's name for the model.", "its first")]
ApiKeyEnv = Annotated[Given, _model("NAME", "Environment variable with the key that the server asks for.")]
EngineArgs = Annotated[Given, _model("JSON", "Further arguments of vLLM's AsyncEngineArgs.")]
Host = Annotated[Given, _server("ADDRESS", "Address to listen on.", "127.0.0.1")]
Port = Annotated[Given, _server("PORT", "Port to listen on; 0 picks a free one.", "8080")]
Region = Annotated[Given, _server("NAME", "AWS region that ARNs in answers name.", "us-east-1")]
MaxInflight = Annotated[
    Given, _server("N", "Calls in progress, a replica, beyond which new ones are throttled.", "256")
]
DrainSeconds = Annotated[Given, _server("SECONDS", "How long calls in progress may go on at shutdown.", "30")]
NoticeSeconds = Annotated[
    Given,
    _server("SECONDS", "How long calls are taken after SIGTERM, with /health/ready saying 503.", "0"),
]
StepTimeout = Annotated[
    Given, _server("SECONDS", "Silence after which an engine is taken for hung and restarted.", "120")
]
Auth = Annotated[
    Given,
    _server(
        "MODE",
        "Whether callers need a key: required, off, or auto, which is off on loopback alone.",
        "auto",
    ),
]
TlsCertificate = Annotated[Given, _server("FILE", "Certificate, PEM; with it the server speaks HTTPS.")]
TlsKey = Annotated[Given, _server("FILE", "Key of the certificate, PEM, where it is not in the same file.")]
Strict = Annotated[
    bool | None, _switch("--strict", "Refuse what Bedrock's own Llama models refuse, in its words.")
]
FaultInjection = Annotated[
    bool | None, _switch("--fault-injection", "Let calls ask for errors, delays and broken streams.")
]
Inspect = Annotated[Given, _server("N", "Last requests and answers to show at /inspector.", "0")]
Seed = Annotated[Given, _server("N", "Seed of calls that give none: the same call, the same answer.")]
Prompts = Annotated[
    Given, _server("FOLDER", "Stored prompts that calls may name by their ARN, one JSON file each.")
]
State = Annotated[
    Given,
    _server(
        "FILE",
        "SQLite file for jobs, profiles and usage, or the URL of a PostgreSQL database that servers share.",
        "~/.local/state/outcrop/state.db",
    ),
]
LogLevel = Annotated[Given, _server("NAME", "debug, info, warning or error.", "info")]
Config = Annotated[Path | None, _server("FILE", "Configuration file, TOML. Also OUTCROP_CONFIG=FILE.")]
