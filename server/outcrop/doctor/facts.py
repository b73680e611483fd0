"""What there is on this machine, read without changing anything."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from outcrop.backends.neuron import devices as sysfs
from outcrop.backends.neuron.cores import VISIBLE_CORES
from outcrop.doctor.neuron_ls import Device, NeuronLsError, parse_neuron_ls
from outcrop_compile.meminfo import read_meminfo
from outcrop_compile.sdk import installed_packages

_PATIENCE = 30  # seconds for a command; neuron-ls waits for a driver that hangs
_NEURON_LS = "opt/aws/neuron/bin/neuron-ls"
_DPKG, _RPM = "usr/bin/dpkg-query", "usr/bin/rpm"
_PACKAGES = {
    _DPKG: ("-W", "-f", "${Package} ${Version}\n", "aws-neuronx-*"),
    _RPM: ("-qa", "--qf", "%{NAME} %{VERSION}\n", "aws-neuronx-*"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """nodes: /dev/neuronN. cores, architecture, instance, uncorrectable: of the driver's sysfs. driver: the
    version that is loaded, which need not be the one installed last. packages: of the system; rpm: whether
    they are that manager's, and not dpkg's. python: packages of the SDK in this environment. devices: of
    neuron-ls; devices_problem: why there are none. memory, available: bytes of the host. torch: its version.
    native: whether the C++ kernels are there; compiler: what could build them."""

    nodes: tuple[str, ...]
    cores: int | None
    architecture: str | None
    instance: str | None
    uncorrectable: int
    driver: str | None
    packages: dict[str, str]
    rpm: bool
    python: dict[str, str]
    devices: tuple[Device, ...]
    devices_problem: str | None
    visible_cores: str | None
    memory: int
    available: int
    machine: str
    torch: str | None
    native: bool
    compiler: str | None


def gather(root: Path = Path("/")) -> Facts:
    """root: where /dev, /sys, /proc, /usr and /opt are looked for."""
    from outcrop_kernels.cpu.native.library import available as native_available

    tree = root / sysfs.SYSFS.relative_to("/")
    devices, problem = _devices(root)
    memory = read_meminfo(root / "proc/meminfo")
    return Facts(
        nodes=tuple(sorted(str(path) for path in (root / "dev").glob("neuron[0-9]*"))),
        cores=sysfs.core_count(tree),
        architecture=sysfs.architecture(tree),
        instance=_text(tree / "neuron0/info/architecture/instance_type"),
        uncorrectable=sysfs.uncorrectable_errors(tree),
        driver=_text(root / "sys/module/neuron/version"),
        packages=_packages(root),
        rpm=not (root / _DPKG).exists() and (root / _RPM).exists(),
        python=installed_packages(),
        devices=devices,
        devices_problem=problem,
        visible_cores=os.environ.get(VISIBLE_CORES),
        memory=memory.get("MemTotal", 0),
        available=memory.get("MemAvailable", 0),
        machine=platform.machine(),
        torch=metadata.version("torch") if find_spec("torch") else None,
        native=native_available(),
        compiler=shutil.which("g++") or shutil.which("c++"),
    )


def _devices(root: Path) -> tuple[tuple[Device, ...], str | None]:
    command = root / _NEURON_LS
    if not command.exists():
        return (), "neuron-ls is not installed"
    try:
        done = _run(command, "--json-output")
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"neuron-ls could not be run: {error}"
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        return (), f"neuron-ls ended with status {done.returncode}: {lines[-1]}"
    try:
        return parse_neuron_ls(done.stdout), None
    except NeuronLsError as error:
        return (), str(error)


def _packages(root: Path) -> dict[str, str]:
    """By whichever package manager there is; a revision after the version is left out."""
    found: dict[str, str] = {}
    for name, arguments in _PACKAGES.items():
        if (root / name).exists():
            try:
                done = _run(root / name, *arguments)
            except (OSError, subprocess.TimeoutExpired):
                continue
            for line in done.stdout.splitlines():
                package, _, version = line.partition(" ")
                if version:
                    found[package] = version.partition("-")[0]
    return found


def _run(command: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(command), *arguments], capture_output=True, text=True, timeout=_PATIENCE, check=False
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
