"""What the doctor finds on machines that are well, and on machines that are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import command, machine, ring

from outcrop.doctor.facts import Facts, gather
from outcrop.doctor.findings import (
    Finding,
    State,
    has_neuron,
    host_findings,
    missing,
    neuron_findings,
)
from outcrop_compile.sdk import RELEASES


def facts_of(root: Path, release: str = "2.31.1", **changes: Any) -> Facts:
    """As gathered there, with the Python packages of a release, and with kernels, built here or not."""
    as_set = {"python": dict(RELEASES[release].python), "visible_cores": None, "native": True} | changes
    return replace(gather(root), **as_set)


def findings(facts: Facts, tp: int | None = None, release: str | None = None) -> dict[str, Finding]:
    wanted = RELEASES[release] if release else None
    found = [*neuron_findings(facts, wanted, tp), *host_findings(facts)]
    assert all(finding.advice for finding in found if finding.state is not State.OK)
    assert len({finding.check for finding in found}) == len(found)
    return {finding.check: finding for finding in found}


def states(found: dict[str, Finding]) -> dict[str, State]:
    """Of all that is not well."""
    return {check: finding.state for check, finding in found.items() if finding.state is not State.OK}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("rpm", [False, True])
def test_a_machine_with_a_pinned_release_is_well(tmp_path: Path, release: str, rpm: bool) -> None:
    found = findings(facts_of(machine(tmp_path, release=release, rpm=rpm), release))
    assert states(found) == {}
    assert found["devices"].found == "1 device, 2 NeuronCores, Inf2"
    assert found["driver"].found == f"{RELEASES[release].system['aws-neuronx-dkms']}, of SDK {release}"
    assert found["python packages"].found == f"those of SDK {release}"
    assert found["free cores"].found == "2 of 2: 0-1"


def test_another_release_than_the_wanted_one(tmp_path: Path) -> None:
    found = findings(facts_of(machine(tmp_path, release="2.28.1"), "2.28.1"), release="2.31.1")
    assert states(found) == {
        "driver": State.WARNING, "runtime-lib": State.WARNING, "collectives": State.WARNING,
        "tools": State.WARNING, "python packages": State.FAILED,
    }  # fmt: skip
    assert "torch-neuronx==2.9.0.2.15.32035" in found["python packages"].advice


def test_a_driver_that_its_runtime_is_too_old_for(tmp_path: Path) -> None:
    root = machine(tmp_path, packages={"aws-neuronx-runtime-lib": "2.30.51.0"})
    found = findings(facts_of(root))
    assert found["driver"].state is State.FAILED
    assert "sudo apt-get install aws-neuronx-runtime-lib=2.33.10.0*" in found["driver"].advice


def test_a_driver_that_was_updated_but_not_loaded(tmp_path: Path) -> None:
    found = findings(facts_of(machine(tmp_path, driver="2.26.10.0")))
    assert found["driver"].found == "2.26.10.0 is loaded, 2.29.0.0 is installed"
    assert "modprobe neuron" in found["driver"].advice


def test_a_driver_that_is_not_loaded(tmp_path: Path) -> None:
    root = machine(tmp_path, rpm=True)
    (root / "sys/module/neuron/version").unlink()
    found = findings(facts_of(root))
    assert (found["driver"].state, found["driver"].found) == (State.FAILED, "not loaded")
    assert found["driver"].advice == "sudo dnf install aws-neuronx-dkms-2.29.0.0*"


def test_packages_that_are_absent(tmp_path: Path) -> None:
    root = machine(tmp_path, packages={"aws-neuronx-collectives": ""})
    facts = replace(facts_of(root), python={"torch-neuronx": "2.9.0.2.15.32035+abc"})
    found = findings(facts)
    assert found["collectives"].found == "not installed"
    assert found["python packages"].found == "missing: neuronx-cc, libneuronxla, neuronx-distributed"
    assert "pip.repos.neuron.amazonaws.com" in found["python packages"].advice


def test_a_newer_compiler_is_named(tmp_path: Path) -> None:
    facts = facts_of(machine(tmp_path))
    facts.python["neuronx-cc"] = "2.27.5334.0"
    assert findings(facts)["python packages"].found == "not of SDK 2.31.1: neuronx-cc 2.27.5334.0"


@pytest.mark.parametrize(
    ("held", "tp", "state", "words", "advice"),
    [
        ({}, 24, State.OK, "24 of 24: 0-23", ""),
        ({3: 7}, 8, State.WARNING, "process 7 (/usr/bin/python3 -m vllm) holds devices 3", "--cores 8-15"),
        ({4: 7}, 16, State.FAILED, "22 of 24: 0-7, 10-23; 16 side by side", "end what holds the others"),
        (
            dict.fromkeys(range(12), 7),
            2,
            State.FAILED,
            "0 of 24: none; 2 wanted",
            "end what holds the others",
        ),
        ({}, 32, State.FAILED, "24 of 24: 0-23; 32 wanted", "choose a smaller tp"),
    ],
)
def test_free_cores(
    tmp_path: Path, held: dict[int, int], tp: int, state: State, words: str, advice: str
) -> None:
    found = findings(facts_of(machine(tmp_path, devices=12, neuron_ls=ring(12, held))), tp)["free cores"]
    assert found.state is state
    assert words in found.found
    assert advice in found.advice


@pytest.mark.parametrize(
    ("output", "error", "status", "words"),
    [
        ("", 'level=fatal msg="Failed to load MLA system information"', 1, "status 1: level=fatal"),
        ("not json", "", 0, "something else than a list"),
        ("", "", 3, "status 3: it said nothing"),
    ],
)  # fmt: skip
def test_a_neuron_ls_that_fails(tmp_path: Path, output: str, error: str, status: int, words: str) -> None:
    root = machine(tmp_path)
    command(root / "opt/aws/neuron/bin/neuron-ls", output, error=error, status=status)
    found = findings(facts_of(root))["free cores"]
    assert found.state is State.WARNING
    assert words in found.found


def test_without_neuron_ls(tmp_path: Path) -> None:
    found = findings(facts_of(machine(tmp_path, neuron_ls=None)))
    assert states(found) == {"free cores": State.WARNING}


def test_other_chips(tmp_path: Path) -> None:
    found = findings(facts_of(machine(tmp_path, architecture="NCv3")))
    assert states(found) == {"devices": State.FAILED}
    assert "inf2 or trn1" in found["devices"].advice


def test_a_container_without_the_devices(tmp_path: Path) -> None:
    root = machine(tmp_path)
    (root / "dev/neuron0").unlink()
    assert "--device /dev/neuron0" in findings(facts_of(root))["devices"].advice


def test_memory_errors(tmp_path: Path) -> None:
    found = findings(facts_of(machine(tmp_path, devices=2, neuron_ls=ring(2), errors=3)))
    assert states(found) == {"memory errors": State.FAILED}
    assert found["memory errors"].found.startswith("6 that")


def test_a_small_host_and_a_variable(tmp_path: Path) -> None:
    facts = replace(facts_of(machine(tmp_path, memory_gib=16)), visible_cores="0-1")
    found = findings(facts)
    assert states(found) == {"host memory": State.WARNING, "environment": State.WARNING}
    assert found["host memory"].found == "16 GiB, 8 available"


@pytest.mark.parametrize(
    ("changes", "check", "state", "words"),
    [
        ({"torch": None}, "cpu backend", State.FAILED, "pip install 'outcrop[cpu]'"),
        ({"native": False, "compiler": None}, "cpu kernels", State.WARNING, "install g++ 11 or newer"),
        ({"native": False, "compiler": "/usr/bin/g++"}, "cpu kernels", State.WARNING, "pip install --force"),
    ],
)
def test_the_cpu(tmp_path: Path, changes: dict[str, Any], check: str, state: State, words: str) -> None:
    found = findings(facts_of(machine(tmp_path), **changes))
    assert states(found) == {check: state}
    assert words in found[check].advice


def test_a_machine_without_neuron(tmp_path: Path) -> None:
    facts = gather(tmp_path)
    assert not has_neuron(facts)
    device, driver, python = missing(facts)
    assert "inf2 and trn1" in device
    assert "aws-neuronx-dkms, aws-neuronx-runtime-lib" in driver
    assert "neuronx-cc" in python
