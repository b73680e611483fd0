"""`outcrop doctor`: what this machine has of all that serving needs.

What the command works with is imported when it runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outcrop.cli.serve import fail

if TYPE_CHECKING:
    from outcrop.doctor.findings import Finding
    from outcrop_compile.sdk import Release

NO_NEURON = 3
"""The exit status where there are no Neuron devices."""


def doctor(
    tp: Annotated[
        int | None, typer.Option(metavar="N", help="NeuronCores that a replica is to have (default: any).")
    ] = None,
    sdk: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="Neuron SDK release to compare with (default: the one found here)."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Another engine: vllm-cpu, vllm-neuron or optimum-neuron."),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The interpreter of its environment (default: this one)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The server's configuration file, for its database.")
    ] = None,
) -> None:
    """Check driver, runtime, versions, free NeuronCores and memory, and say what to do about them; and the
    database, where servers share one.

    With --engine, also the versions in the environment of that engine. Exits with 0 if models can be served
    on Neuron devices, 1 if something has to be mended first, and 3 if there are none and the CPU is what
    remains.
    """
    from outcrop.doctor.facts import gather
    from outcrop.doctor.findings import State, has_neuron, host_findings, missing, neuron_findings

    if tp is not None and tp < 1:
        fail(f"--tp {tp}: it has to be at least 1")
    release, facts = _release(sdk), gather()
    neuron = has_neuron(facts)
    findings = [
        *(neuron_findings(facts, release, tp) if neuron else ()),
        *host_findings(facts),
        *_database(config),
    ]
    if engine is not None:
        findings.append(_environment(engine, python))
    lacking = [] if neuron else missing(facts)
    if as_json:
        typer.echo(
            json.dumps(
                {"neuron": neuron, "missing": lacking, "findings": [asdict(each) for each in findings]},
                indent=2,
            )
        )
    else:
        _print(lacking, findings)
    if any(each.state is State.FAILED for each in findings):
        raise typer.Exit(1)
    raise typer.Exit(0 if neuron else NO_NEURON)


def _environment(name: str, python: Path | None) -> Finding:
    from outcrop.doctor.engine_environment import environment_finding
    from outcrop.environments.environment import ENVIRONMENTS

    if name not in ENVIRONMENTS:
        fail(f"--engine {name}: Outcrop knows the environments {', '.join(ENVIRONMENTS)}")
    return environment_finding(ENVIRONMENTS[name], python or Path(sys.executable))


def _release(name: str | None) -> Release | None:
    from outcrop_compile.sdk import RELEASES

    if name is not None and name not in RELEASES:
        fail(f"--sdk {name}: Outcrop is made for {' and '.join(RELEASES)}")
    return None if name is None else RELEASES[name]


def _database(config: Path | None) -> list[Finding]:
    from outcrop.ledger.location import is_shared
    from outcrop.settings import SettingsError, load_ledger_settings

    try:
        state = load_ledger_settings(config).state
    except SettingsError as error:
        fail(str(error))
    if not is_shared(state):
        return []
    from outcrop.doctor.database import database_finding

    return [database_finding(state)]


def _print(lacking: list[str], findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from outcrop.doctor.findings import State

    console = Console(highlight=False)
    if lacking:
        console.print("There is no Neuron device here, so models run on the CPU. To serve on one it lacks:")
        listed = Table.grid(padding=(0, 1))
        for each in lacking:
            listed.add_row("  -", each)
        console.print(listed)
        console.print(
            "What works: outcrop serve (on the CPU), outcrop compile plan, and tests, which need no device."
        )
        console.print()
    colours = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(f"[{colours[finding.state]}]{finding.state}[/]", finding.check, escape(finding.found))
        if finding.advice:
            table.add_row("", "", f"-> {escape(finding.advice)}")
    console.print(table)
