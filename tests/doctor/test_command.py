"""`outcrop doctor`, on this machine and on others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machines import machine
from typer.testing import CliRunner, Result

from outcrop.cli.main import app
from outcrop.doctor import facts


def doctor(*options: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *options], env={"COLUMNS": "80"})


@pytest.mark.skipif(Path("/dev/neuron0").exists(), reason="this machine has Neuron devices")
def test_here() -> None:
    """A machine that runs these tests has the CPU backend."""
    done = doctor()
    assert done.exit_code == 3, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    assert "There is no Neuron device here" in text
    assert "aws-neuronx-dkms" in text
    assert "ok cpu backend torch" in text
    found = json.loads(doctor("--json").stdout)
    assert (found["neuron"], len(found["missing"])) == (False, 3)
    assert {each["check"] for each in found["findings"]} == {"host memory", "cpu backend", "cpu kernels"}


def test_a_machine_with_something_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python packages are those of this environment, so absent or stand-ins."""
    root, gather = machine(tmp_path), facts.gather
    monkeypatch.setattr(facts, "gather", lambda: gather(root))
    done = doctor("--tp", "2", "--sdk", "2.28.1")
    assert done.exit_code == 1
    text = " ".join(done.stdout.split())
    assert "warning driver 2.29.0.0; SDK 2.28.1 has 2.26.10.0" in text
    assert "-> pip install --extra-index-url" in text
    found = json.loads(doctor("--json").stdout)
    assert (found["neuron"], found["missing"]) == (True, [])
    assert {"check": "driver", "state": "ok", "found": "2.29.0.0, of SDK 2.31.1", "advice": ""} in found[
        "findings"
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--sdk", "2.32.0"), "made for 2.31.1 and 2.28.1"), (("--tp", "0"), "--tp 0: it has to be at least 1")],
)
def test_mistakes(options: tuple[str, ...], words: str) -> None:
    done = doctor(*options)
    assert done.exit_code == 2
    assert words in done.stderr
