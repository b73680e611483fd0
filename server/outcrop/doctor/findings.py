"""What is well and what is not, with what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from outcrop.backends.neuron.cores import VISIBLE_CORES
from outcrop.doctor.facts import Facts
from outcrop.doctor.neuron_ls import free_runs, owners
from outcrop_compile.sdk import DEFAULT_RELEASE, RELEASES, Release, release_of

_GIB = 1 << 30
_ARCHITECTURE = "trn1"
_BUILD_MEMORY = 20 * _GIB
"""Of a host that compiles Llama 3 8B; `outcrop compile plan` says it of each model."""


class State(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """check: what was looked at. found: what was seen. advice: what to do; empty where all is well."""

    check: str
    state: State
    found: str
    advice: str = ""


def neuron_findings(facts: Facts, release: Release | None, tp: int | None) -> Iterator[Finding]:
    """Of a machine that has Neuron devices. release: the one that is wanted; None for whichever is here.
    tp: cores that one replica is to have."""
    wanted = release or _release_here(facts)
    yield _devices(facts)
    yield _driver(facts, wanted)
    yield from _system_packages(facts, wanted)
    yield _python_packages(facts, wanted)
    yield _free_cores(facts, tp)
    yield from _environment(facts)
    yield _memory_errors(facts)


def host_findings(facts: Facts) -> Iterator[Finding]:
    """Of any machine."""
    yield _host_memory(facts)
    yield _cpu_backend(facts)
    yield _native_kernels(facts)


def has_neuron(facts: Facts) -> bool:
    return bool(facts.nodes or facts.cores or facts.devices)


def missing(facts: Facts) -> list[str]:
    """What a machine without Neuron devices lacks to serve on them."""
    release = RELEASES[DEFAULT_RELEASE]
    lacking = ["a Neuron device (/dev/neuron0), which inf2 and trn1 instances have"]
    packages = [name for name in release.system if name not in facts.packages]
    if facts.driver is None or packages:
        lacking.append(f"the driver and its tools: {', '.join(packages) or 'aws-neuronx-dkms is not loaded'}")
    if python := [name for name in release.python if name not in facts.python]:
        lacking.append(f"Python packages of the Neuron SDK {release.name}: {', '.join(python)}")
    return lacking


def _release_here(facts: Facts) -> Release:
    """The release of the Python packages, else that of the driver, else the newest."""
    name = release_of(facts.python) or next(
        (each.name for each in RELEASES.values() if each.system["aws-neuronx-dkms"] == facts.driver),
        DEFAULT_RELEASE,
    )
    return RELEASES[name]


def _devices(facts: Facts) -> Finding:
    devices = "1 device" if len(facts.nodes) == 1 else f"{len(facts.nodes)} devices"
    seen = f"{devices}, {facts.cores or '?'} NeuronCores"
    if facts.instance:
        seen += f", {facts.instance}"
    if not facts.nodes:
        return Finding(
            "devices",
            State.FAILED,
            "the driver knows Neuron devices, but there is no /dev/neuron*",
            "in a container, pass them in (--device /dev/neuron0; in Kubernetes aws.amazon.com/neuron)",
        )
    if facts.architecture is None:
        return Finding(
            "devices",
            State.FAILED,
            f"{devices} in /dev, but the driver says nothing about them in /sys",
            "load the driver: sudo modprobe neuron; in a container, mount /sys",
        )
    if facts.architecture != _ARCHITECTURE:
        return Finding(
            "devices",
            State.FAILED,
            f"{seen}, of architecture {facts.architecture}",
            "Outcrop compiles for NeuronCore-v2: use an inf2 or trn1 instance",
        )
    return Finding("devices", State.OK, seen)


def _driver(facts: Facts, release: Release) -> Finding:
    pin = release.system["aws-neuronx-dkms"]
    if facts.driver is None:
        return Finding("driver", State.FAILED, "not loaded", _install(facts, "aws-neuronx-dkms", pin))
    loaded, installed = facts.driver, facts.packages.get("aws-neuronx-dkms")
    if installed and installed != loaded:
        return Finding(
            "driver",
            State.WARNING,
            f"{loaded} is loaded, {installed} is installed",
            "load the installed one: sudo rmmod neuron && sudo modprobe neuron, or reboot",
        )
    runtime = facts.packages.get("aws-neuronx-runtime-lib")
    if runtime and _number(loaded) >= (2, 29) and _number(runtime) < (2, 33):
        return Finding(
            "driver",
            State.FAILED,
            f"{loaded}, with which runtime {runtime} does not start: from 2.29 on it wants 2.33",
            _install(facts, "aws-neuronx-runtime-lib", release.system["aws-neuronx-runtime-lib"]),
        )
    return _pinned("driver", loaded, pin, release, _install(facts, "aws-neuronx-dkms", pin))


def _system_packages(facts: Facts, release: Release) -> Iterator[Finding]:
    for name, pin in release.system.items():
        if name == "aws-neuronx-dkms":
            continue
        check, mend = name.removeprefix("aws-neuronx-"), _install(facts, name, pin)
        if name not in facts.packages:
            yield Finding(check, State.FAILED, "not installed", mend)
        else:
            yield _pinned(check, facts.packages[name], pin, release, mend)


def _python_packages(facts: Facts, release: Release) -> Finding:
    found = {name: version.partition("+")[0] for name, version in facts.python.items()}
    absent = [name for name in release.python if name not in found]
    other = [f"{name} {found[name]}" for name, pin in release.python.items() if found.get(name, pin) != pin]
    if not absent and not other:
        return Finding("python packages", State.OK, f"those of SDK {release.name}")
    seen = [f"missing: {', '.join(absent)}"] if absent else []
    seen += [f"not of SDK {release.name}: {', '.join(other)}"] if other else []
    return Finding("python packages", State.FAILED, "; ".join(seen), release.install_command())


def _free_cores(facts: Facts, tp: int | None) -> Finding:
    if facts.devices_problem:
        advice = "who holds which core is not known: install aws-neuronx-tools, or see dmesg"
        return Finding("free cores", State.WARNING, facts.devices_problem, advice)
    runs = free_runs(facts.devices)
    free, total = sum(map(len, runs)), sum(len(device.cores) for device in facts.devices)
    longest = max(map(len, runs), default=0)
    seen = f"{free} of {total}: {', '.join(_cores(run) for run in runs) or 'none'}"
    held = "; ".join(
        f"process {process.pid} ({process.command[:40]}) holds devices {', '.join(map(str, indices))}"
        for process, indices in owners(facts.devices)
    )
    state, advice = State.OK, ""
    if longest < (tp or 1):
        state = State.FAILED
        advice = "end what holds the others" if held else "choose a smaller tp, or a larger instance"
        why = "side by side on connected devices" if free >= (tp or 1) else "wanted"
        seen = f"{seen}; {tp or 1} {why}"
    elif held:
        run = max(runs, key=len)
        chosen = run[: tp or len(run)]
        state, advice = State.WARNING, f"serve on free ones, such as --cores {_cores(chosen)}"
    return Finding("free cores", state, f"{seen}; {held}" if held else seen, advice)


def _environment(facts: Facts) -> Iterator[Finding]:
    if facts.visible_cores:
        found = f"{VISIBLE_CORES}={facts.visible_cores} is set"
        yield Finding(
            "environment", State.WARNING, found, "unset it: servers are told their cores by --cores"
        )


def _memory_errors(facts: Facts) -> Finding:
    if facts.uncorrectable:
        return Finding(
            "memory errors",
            State.FAILED,
            f"{facts.uncorrectable} that could not be corrected since the driver was loaded",
            "stop and start the instance, which moves it to other hardware",
        )
    return Finding("memory errors", State.OK, "none")


def _host_memory(facts: Facts) -> Finding:
    seen = f"{facts.memory / _GIB:.0f} GiB, {facts.available / _GIB:.0f} available"
    if facts.memory < _BUILD_MEMORY:
        return Finding(
            "host memory",
            State.WARNING,
            seen,
            "too little to compile Llama 3 8B: build on a larger machine (see outcrop compile plan)",
        )
    return Finding("host memory", State.OK, seen)


def _cpu_backend(facts: Facts) -> Finding:
    if facts.torch is None:
        return Finding("cpu backend", State.FAILED, "torch is not installed", "pip install 'outcrop[cpu]'")
    return Finding("cpu backend", State.OK, f"torch {facts.torch} on {facts.machine}")


def _native_kernels(facts: Facts) -> Finding:
    compiler = facts.compiler or "no C++ compiler"
    if facts.native:
        return Finding("cpu kernels", State.OK, f"built; {compiler}")
    advice = "pip install --force-reinstall outcrop"
    if facts.compiler is None:
        advice = f"install g++ 11 or newer, then {advice}"
    found = f"not built, so the CPU backend is several times slower; {compiler}"
    return Finding("cpu kernels", State.WARNING, found, advice)


def _pinned(check: str, version: str, pin: str, release: Release, mend: str) -> Finding:
    if version == pin:
        return Finding(check, State.OK, f"{version}, of SDK {release.name}")
    return Finding(check, State.WARNING, f"{version}; SDK {release.name} has {pin}", mend)


def _install(facts: Facts, name: str, version: str) -> str:
    return f"sudo dnf install {name}-{version}*" if facts.rpm else f"sudo apt-get install {name}={version}*"


def _cores(run: range) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
