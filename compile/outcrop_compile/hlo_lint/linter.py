"""The linter: every rule over a module, or over a directory of modules from anyone."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from outcrop_compile.hlo.module import HloError, HloModule
from outcrop_compile.hlo.record import GraphRecord, RecordError, Sizes, read_record, record_path
from outcrop_compile.hlo_lint import graphs, operations
from outcrop_compile.hlo_lint.finding import CHECKS, Finding
from outcrop_compile.hlo_lint.rules import RULES

__all__ = ["SUFFIXES", "LintError", "graphs", "hlo_files", "lint_directory", "lint_module", "operations"]

SUFFIXES = (".pb", ".hlo")
"""Files taken for HLO modules: ours (.hlo.pb), torch-neuronx's graph.hlo, XLA's dumps (.hlo_module.pb)."""


class LintError(ValueError):
    """Nothing to look at, or a file that is no HLO module."""


def hlo_files(directory: Path) -> list[Path]:
    """Every HLO module below a directory. Raises LintError where there is none."""
    if not directory.is_dir():
        raise LintError(f"{directory} is not a directory")
    found = sorted(path for path in directory.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
    if not found:
        raise LintError(
            f"{directory} has no HLO modules: no file below it ends in {' or '.join(SUFFIXES)} "
            "(serialised HloModuleProto)"
        )
    return found


def lint_module(module: HloModule, file: str = "") -> Iterator[Finding]:
    """Every breach of the rules, in the order of the rules."""
    for rule in RULES.values():
        if rule.id in CHECKS:
            for instruction, detail in CHECKS[rule.id](module):
                where = "" if instruction is None else str(instruction)
                source = "" if instruction is None else str(instruction.source)
                yield Finding(file, rule, where, source, detail)


def lint_file(path: Path) -> list[Finding]:
    """Raises LintError where the file is no HLO module."""
    try:
        return list(lint_module(HloModule(path.read_bytes()), str(path)))
    except HloError as error:
        raise LintError(f"{path}: {error}; expected a serialised HloModuleProto") from None


def lint_directory(directory: Path) -> Iterator[tuple[Path, list[Finding]]]:
    """Each module's findings as they are made, and last those between modules, under the directory's own
    name. Raises LintError."""
    records: dict[Path, GraphRecord] = {}
    for path in hlo_files(directory):
        yield path, lint_file(path)
        # Whoever made the HLO may have put other JSON beside it.
        with contextlib.suppress(OSError, RecordError):
            records[path] = read_record(record_path(path))
    yield directory, [*_graphs_per_step(records), *_mixed_versions(directory, records)]


def _graphs_per_step(records: dict[Path, GraphRecord]) -> Iterator[Finding]:
    by_step: dict[tuple[str, Sizes], list[Path]] = defaultdict(list)
    for path, record in records.items():
        by_step[record.graph.tag, record.sizes].append(path)
    for (tag, sizes), paths in by_step.items():
        if len(paths) > 1:
            yield Finding(
                str(paths[0]),
                RULES["graphs-per-step"],
                "",
                "",
                f"{tag} at tp {sizes.tp} is also {', '.join(path.name for path in paths[1:])}",
            )


def _mixed_versions(directory: Path, records: dict[Path, GraphRecord]) -> Iterator[Finding]:
    versions: dict[str, set[str]] = defaultdict(set)
    for record in records.values():
        for package, version in record.versions.items():
            versions[package].add(version)
    for package, found in versions.items():
        if len(found) > 1:
            yield Finding(
                str(directory), RULES["mixed-versions"], "", "", f"{package} {' and '.join(sorted(found))}"
            )
