"""What `neuron-ls` says: the devices, how they are connected and who uses them.

Output: aws-neuron-sdk, tools/neuron-sys-tools/neuron-ls.rst; on NeuronCore-v2 as backend.ai's tests have it
from a trn1.2xlarge (`connected_to` is null where there is but one device). Not yet run on a device.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


class NeuronLsError(ValueError):
    """The output is not what neuron-ls prints."""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class Device:
    """index: N of /dev/neuronN. cores: their numbers on this machine. memory: bytes. connected_to: indices of
    its neighbours. processes: that hold it, neuron-ls itself aside."""

    index: int
    cores: tuple[int, ...]
    memory: int
    connected_to: tuple[int, ...]
    processes: tuple[Process, ...]


def parse_neuron_ls(text: str) -> tuple[Device, ...]:
    """The devices in `neuron-ls --json-output`, in order. Raises NeuronLsError."""
    try:
        entries = sorted(json.loads(text), key=lambda entry: int(entry["neuron_device"]))
        return tuple(_device(entry, place) for place, entry in enumerate(entries))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NeuronLsError(f"neuron-ls printed something else than a list of devices ({error!r})") from None


def _device(entry: dict[str, Any], place: int) -> Device:
    index, count = int(entry["neuron_device"]), int(entry["nc_count"])
    # Older tools do not number the cores; they are in the order of the devices.
    cores = entry.get("neuroncore_ids") or range(place * count, (place + 1) * count)
    processes = [
        Process(int(process["pid"]), str(process["command"]))
        for process in entry.get("neuron_processes") or []
        if not str(process["command"]).split("/")[-1].startswith("neuron-ls")
    ]
    return Device(
        index,
        tuple(map(int, cores)),
        int(entry["memory_size"]),
        tuple(map(int, entry.get("connected_to") or [])),
        tuple(processes),
    )


def free_runs(devices: Iterable[Device]) -> list[range]:
    """The free cores in runs that one process may have: consecutive numbers, on connected devices."""
    runs: list[list[Device]] = []
    free = (device for device in devices if not device.processes)
    for device in free:
        if runs and _continues(runs[-1], device):
            runs[-1].append(device)
        else:
            runs.append([device])
    return [range(run[0].cores[0], run[-1].cores[-1] + 1) for run in runs]


def _continues(run: list[Device], device: Device) -> bool:
    """In a torus, the first device of a row is no neighbour of the one before it, but of one in that row."""
    follows = device.cores[0] == run[-1].cores[-1] + 1
    return follows and any(earlier.index in device.connected_to for earlier in run)


def owners(devices: Iterable[Device]) -> Iterator[tuple[Process, tuple[int, ...]]]:
    """Each process that holds devices, and their indices."""
    held: dict[Process, list[int]] = {}
    for device in devices:
        for process in device.processes:
            held.setdefault(process, []).append(device.index)
    for process, indices in held.items():
        yield process, tuple(indices)
