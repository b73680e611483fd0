"""`outcrop bench`: measure a server from outside.

What the command works with is imported when it runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outcrop.cli.compile import options
from outcrop.cli.html_file import write_html
from outcrop.cli.serve import fail

if TYPE_CHECKING:
    from outcrop.bench.protocol import Protocol
    from outcrop.simulate.trace import Trace

API_KEY_VARIABLE = "AWS_BEARER_TOKEN_BEDROCK"
"""The AWS SDKs' own."""


Tokens = Annotated[int, options.option("TOKENS", "Of the middle request.")]


def bench(
    url: Annotated[str, options.option("URL", "Such as http://127.0.0.1:8080; for openai, all before /v1.")],
    model: Annotated[str, options.option("ID", "As the server names it.")],
    protocol: Annotated[
        str, options.option("NAME", "converse, invoke or openai, each streaming.")
    ] = "converse",
    rate: Annotated[float, options.option("RPS", "Requests a second on average, at random (Poisson).")] = 1.0,
    requests: Annotated[int, options.option("N", "How many; of a trace, at most.")] = 100,
    input_tokens: Tokens = 500,
    output_tokens: Tokens = 100,
    spread: Annotated[
        float, options.option("SIGMA", "Of the logarithms of both, so that a few are long.")
    ] = 0.0,
    burstiness: Annotated[float, options.option("SHAPE", "Below 1, requests come in bursts.")] = 1.0,
    trace: Annotated[
        Path | None, options.option("FILE", "Requests recorded elsewhere (CSV, JSONL) instead.")
    ] = None,
    speed: Annotated[float, options.option("TIMES", "Play the trace faster.")] = 1.0,
    slo: Annotated[
        str | None, options.option("SLO", "ttft=500,tpot=50 in ms, or mlperf-8b-server …: goodput.")
    ] = None,
    warmup: Annotated[int, options.option("N", "Requests before, which are not counted.")] = 4,
    timeout: Annotated[float, options.option("SECONDS", "That one answer may take.")] = 300.0,
    seed: Annotated[int, options.option("N", "Of times, lengths and prompts.")] = 0,
    html: Annotated[
        Path | None, options.option("FILE", "Write a report, with plots (needs outcrop\\[plots]).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure latencies, throughput and goodput of a server under a load that does not wait for it.

    An API key is taken from AWS_BEARER_TOKEN_BEDROCK. Exits with 1 if no request was answered.

    For example: outcrop bench --url http://127.0.0.1:8080 --model meta.llama3-1-8b-instruct-v1:0 --rate 2
    """
    from outcrop.bench.figures import figures
    from outcrop.bench.run import run
    from outcrop.simulate.slo import parse_slo
    from outcrop.simulate.trace import Lengths, poisson

    target = _protocol(protocol, url, model)
    if min(requests, warmup + 1) < 1 or timeout <= 0:
        fail("--requests has to be at least 1, --warmup 0 or more, --timeout above 0")
    try:
        promised = None if slo is None else parse_slo(slo)
        load = _trace(
            trace, speed, rate=rate, count=requests, prompt=input_tokens, output=output_tokens, spread=spread,
            burstiness=burstiness, seed=seed,
        )  # fmt: skip
        before = poisson(1000.0, max(warmup, 1), Lengths(input_tokens, output_tokens), seed)
    except (ValueError, OSError) as error:
        fail(str(error))
    if warmup:
        asyncio.run(run(target, before, seed=seed + 1, timeout=timeout))
    with _progress(len(load)) as progress:
        calls = asyncio.run(run(target, load, seed=seed, timeout=timeout, progress=progress))
    found = figures(calls, promised)
    record = {
        "kind": "measured",
        "url": url,
        "model": model,
        "protocol": protocol,
        "load": load.name,
        "requests": len(load),
        "seed": seed,
        "slo": None if promised is None else dataclasses.asdict(promised),
        **dataclasses.asdict(found),
    }
    if html is not None:
        from outcrop.bench.report import html_report

        write_html(html, lambda: html_report(record, calls))
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        from outcrop.bench.table import print_figures

        print_figures(record, found)
    if not found.completed:
        raise typer.Exit(1)


def _protocol(name: str, url: str, model: str) -> Protocol:
    from outcrop.bench.protocol import PROTOCOLS

    if name not in PROTOCOLS:
        fail(f"--protocol {name}: there are {', '.join(PROTOCOLS)}")
    if not url.startswith(("http://", "https://")):
        fail(f"--url {url}: it begins with http:// or https://")
    key = os.environ.get(API_KEY_VARIABLE)
    return PROTOCOLS[name](url, model, {"Authorization": f"Bearer {key}"} if key else None)


def _trace(
    file: Path | None,
    speed: float,
    *,
    rate: float,
    count: int,
    prompt: int,
    output: int,
    spread: float,
    burstiness: float,
    seed: int,
) -> Trace:
    """Raises ValueError."""
    from outcrop.simulate.trace import Lengths, poisson
    from outcrop.simulate.trace_file import read_trace

    if file is not None:
        return read_trace(file, limit=count, speed=speed)
    lengths = Lengths(prompt, output, spread, spread)
    return poisson(rate, count, lengths, seed, burstiness=burstiness)


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=count)
        yield lambda done: shown.update(task, completed=done)
