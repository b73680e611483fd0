"""The table of clients in README.md, made from a test run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import cases
from .programs import CLIENTS, Client

START = "<!-- results: start -->"
END = "<!-- results: end -->"
ACCESSES = ("unsigned", "signed", "bearer")
CHECKS = (*cases.EXPECTATIONS, *cases.MESSAGES)


class Table:
    """What a run has shown so far."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, str], bool] = {}
        self._clients: dict[str, tuple[Mapping[str, str], str]] = {}
        self._suites: dict[str, Mapping[str, int]] = {}

    def add(self, properties: Mapping[str, Any], passed: bool) -> None:
        """Note a finished test. properties: what it recorded of itself."""
        if "client" in properties:
            name, versions, transport = properties["client"]
            self._clients[name] = versions, transport
        if "cell" in properties:
            name, access, check = properties["cell"]
            self._cells[name, access, check] = passed
        if "suite" in properties:
            name, counts = properties["suite"]
            self._suites[name] = counts

    def write(self, path: Path) -> None:
        """Put the table between the marks of a file, in place of the last one."""
        before, _, rest = path.read_text().partition(START)
        _, _, after = rest.partition(END)
        path.write_text(f"{before}{START}\n{self._markdown()}\n{END}{after}")

    def _markdown(self) -> str:
        clients = [client for client in CLIENTS if client.name in self._clients]
        overview = [self._overview(client) for client in clients]
        calls = [
            [check.replace("_", " "), *(self._mark(each, check) for each in clients)] for check in CHECKS
        ]
        suites = [
            f"- `{name}`: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            for name, counts in sorted(self._suites.items())
        ]
        return "\n".join(
            [
                f"Run on {datetime.now(UTC):%Y-%m-%d}. Calls that passed, of those that the client has:",
                "",
                *_rows(["Client", "Versions", "Transport", *ACCESSES], overview),
                "",
                "Each call with all three: ✓ passed, ✗ failed, – the client has no such call.",
                "",
                *_rows(["Call", *(client.name for client in clients)], calls),
                "",
                "LangChain's standard tests:",
                "",
                *suites,
            ]
        )

    def _overview(self, client: Client) -> list[str]:
        versions, transport = self._clients[client.name]
        packages = ", ".join(f"{package} {version}" for package, version in versions.items())
        return [client.name, packages, transport, *(self._score(client, each) for each in ACCESSES)]

    def _score(self, client: Client, access: str) -> str:
        results = [
            passed for (name, how, _), passed in self._cells.items() if (name, how) == (client.name, access)
        ]
        return f"{sum(results)}/{len(results)}" if results else "not run"

    def _mark(self, client: Client, check: str) -> str:
        if check in client.lacks:
            return "–"
        results = [
            passed for (name, _, call), passed in self._cells.items() if (name, call) == (client.name, check)
        ]
        if not results:
            return "not run"
        return "✓" if all(results) else "✗"


def _rows(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
