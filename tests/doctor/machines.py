"""Machines as the doctor sees them: files of /dev, /sys and /proc in a folder, and the commands it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outcrop_compile.sdk import RELEASES

TRN1_2XLARGE = """
[
    {
        "neuron_device": 0,
        "bdf": "0000:00:1e.0",
        "cpu_affinity": "0-7",
        "numa_node": "-1",
        "connected_to": null,
        "nc_count": 2,
        "memory_size": 34359738368,
        "neuroncore_ids": [
            0,
            1
        ],
        "neuron_processes": []
    }
]
"""
"""`neuron-ls --json-output` on a trn1.2xlarge, aws-neuronx-tools 2.28.23.0, as it is kept in
lablup/backend.ai's tests of its Neuron plugin."""


def ring(count: int, held: dict[int, int] | None = None) -> str:
    """The same of an inf2 with `count` devices; held: which process holds a device."""
    devices: list[dict[str, Any]] = []
    for index in range(count):
        process = (held or {}).get(index)
        command = "/usr/bin/python3 -m vllm"
        devices.append(
            {
                "neuron_device": index,
                "bdf": f"{index:02x}:1e.0",
                "connected_to": sorted({(index - 1) % count, (index + 1) % count}),
                "nc_count": 2,
                "memory_size": 32 << 30,
                "neuroncore_ids": [2 * index, 2 * index + 1],
                "neuron_processes": [
                    {"pid": 99, "command": "neuron-ls --json-output", "neuron_runtime_version": "NA"},
                    *(
                        [{"pid": process, "command": command, "neuron_runtime_version": "2.0.0"}]
                        if process
                        else []
                    ),
                ],
            }
        )
    return json.dumps(devices)


def machine(
    root: Path,
    *,
    devices: int = 1,
    neuron_ls: str | None = TRN1_2XLARGE,
    release: str = "2.31.1",
    driver: str | None = None,
    packages: dict[str, str] | None = None,
    architecture: str = "NCv2",
    memory_gib: int = 128,
    errors: int = 0,
    rpm: bool = False,
) -> Path:
    """A machine with the system packages of an SDK release, changed as wanted."""
    pins = dict(RELEASES[release].system) | (packages or {})
    files: dict[str, str] = {
        "proc/meminfo": f"MemTotal: {memory_gib << 20} kB\nMemAvailable:  {memory_gib << 19} kB\n",
        "sys/module/neuron/version": f"{driver or pins['aws-neuronx-dkms']}\n",
    }
    for index in range(devices):
        device = f"sys/devices/virtual/neuron_device/neuron{index}"
        files[f"dev/neuron{index}"] = ""
        files[f"{device}/core_count"] = "2\n"
        files[f"{device}/info/architecture/arch_type"] = f"{architecture}\n"
        files[f"{device}/info/architecture/instance_type"] = "Inf2\n"
        files[f"{device}/stats/hardware/mem_ecc_uncorrected/total"] = f"{errors}\n"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    if neuron_ls is not None:
        command(root / "opt/aws/neuron/bin/neuron-ls", neuron_ls)
    lines = [f"{name} {version}{'' if rpm else '-0f1e2d3c4'}" for name, version in pins.items() if version]
    command(root / ("usr/bin/rpm" if rpm else "usr/bin/dpkg-query"), "\n".join(lines))
    return root


def command(path: Path, output: str, *, error: str = "", status: int = 0) -> None:
    """A program that prints this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n"
        + (f"echo '{error}' >&2\n" if error else "")
        + f"exit {status}\n"
    )
    path.chmod(0o755)
