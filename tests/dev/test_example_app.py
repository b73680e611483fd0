"""The example application's own tests pass, run as its README says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from demo import PATH

pytest_plugins = ("pytester",)

EXAMPLE = Path(__file__).parents[1] / "example_app"
INVOKED_FROM = Path.cwd()


def test_the_example_application(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(INVOKED_FROM / path) for path in paths if path))
    monkeypatch.setenv("OUTCROP_TEST_MODEL", str(PATH))
    monkeypatch.chdir(EXAMPLE)
    arguments = (
        "-p",
        "outcrop.pytest_plugin",
        "-p",
        "no:cacheprovider",
        f"--basetemp={pytester.path / 'run'}",
    )
    result = pytester.run(sys.executable, "-m", "pytest", *arguments)
    result.assert_outcomes(passed=14)
