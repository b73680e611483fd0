"""`outcrop compile lint`: what neuronx-cc would refuse, in HLO from anyone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outcrop.cli.serve import fail

if TYPE_CHECKING:
    from outcrop_compile.hlo_lint.finding import Finding

_SHOWN = 3
"""Findings of one rule in one file that are printed; a graph of 32 layers has each mistake 32 times."""


def lint(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder with HLO modules (.pb, .hlo), at any depth.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="A rule to leave out; may be given repeatedly.")
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="Print the rules instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check graphs against what NeuronCore-v2 and its compiler take. Exit status 1 if there is a finding.

    For example: outcrop compile lint ./hlo
    """
    from outcrop_compile.hlo_lint.linter import LintError, lint_directory
    from outcrop_compile.hlo_lint.rules import RULES

    if rules:
        typer.echo(_as_json(list(RULES.values()))) if as_json else _print_rules()
        return
    if directory is None:
        fail("which folder? For example: outcrop compile lint ./hlo")
    ignored = set(ignore or ())
    if unknown := ignored - RULES.keys():
        fail(f"--ignore {', '.join(sorted(unknown))}: no such rule; outcrop compile lint --rules prints them")
    modules, findings = 0, []
    try:
        for path, found in lint_directory(directory):
            modules += path.is_file()
            kept = [one for one in found if one.rule.id not in ignored]
            findings += kept
            if not as_json:
                print_findings(kept)
    except LintError as error:
        fail(str(error))
    if as_json:
        typer.echo(_as_json({"modules": modules, "findings": [finding_as_json(one) for one in findings]}))
    else:
        typer.echo(f"{modules} modules, {len(findings)} findings")
    raise typer.Exit(1 if findings else 0)


def finding_as_json(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.file,
        "rule": finding.rule.id,
        "codes": finding.rule.codes,
        "severity": finding.rule.severity,
        "instruction": finding.instruction,
        "source": finding.source,
        "detail": finding.detail,
        "why": finding.rule.why,
        "mend": finding.rule.mend,
    }


def print_findings(findings: list[Finding]) -> None:
    """Those of one file, by rule."""
    by_rule: dict[str, list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule.id, []).append(finding)
    for found in by_rule.values():
        rule = found[0].rule
        codes = f" ({', '.join('NCC_' + code for code in rule.codes)})" if rule.codes else ""
        typer.echo(f"{found[0].file}: {rule.severity}: {rule.id}{codes}: {rule.what}")
        for finding in found[:_SHOWN]:
            origin = f" (from {finding.source})" if finding.source else ""
            where = f"{finding.instruction}{origin}: " if finding.instruction else ""
            typer.echo(f"    {where}{finding.detail}")
        if len(found) > _SHOWN:
            typer.echo(f"    and {len(found) - _SHOWN} more")
        typer.echo(f"    why: {rule.why}")
        typer.echo(f"    mend: {rule.mend}")


def _print_rules() -> None:
    from outcrop_compile.hlo_lint.rules import RULES

    table = Table("rule", "code", "severity", "what", "mend")
    for rule in RULES.values():
        codes = " ".join(f"NCC_{code}" for code in rule.codes)
        table.add_row(rule.id, codes, rule.severity, escape(rule.what), escape(rule.mend))
    Console().print(table)


def _as_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
