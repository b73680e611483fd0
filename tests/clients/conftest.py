"""`pytest tests/clients --client-table` writes what it finds into README.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import vllm_engine as vllm

from .table import Table

TABLE = pytest.StashKey[Table]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--client-table", action="store_true", help="Write the results into tests/clients/README.md."
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--client-table", default=False):
        config.stash[TABLE] = Table()
        config.pluginmanager.register(Recorder(config.stash[TABLE]))


class Recorder:
    """Notes what becomes of the tests that name a cell of the table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._table.add(dict(report.user_properties), report.passed)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not hasattr(session.config, "workerinput"):
            self._table.write(Path(__file__).with_name("README.md"))


@pytest.fixture(scope="session")
def engine(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, ...]]:
    """Options of `outcrop serve`: the engine that `--engine` names, in float32, in which no two tokens are so
    close that the shape of a step could decide between them."""
    kind = pytestconfig.getoption("--engine")
    with vllm.serving_options(kind, tmp_path_factory.mktemp("engine"), 2048) as options:
        yield options
