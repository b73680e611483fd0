"""What the Neuron driver says of its devices in sysfs: cheap, and there without any tool.

Paths: aws-neuron-sdk, tools/neuron-sys-tools/neuron-sysfs-user-guide.rst. Not yet run on a device.
"""

from __future__ import annotations

from pathlib import Path

SYSFS = Path("/sys/devices/virtual/neuron_device")

_UNCORRECTABLE = ("mem_ecc_uncorrected", "mem_ecc_repairable_uncorrected", "sram_ecc_uncorrected")
_ARCHITECTURES = {"NCv2": "trn1"}
"""The driver's name of an architecture, and the compiler's."""


def core_count(sysfs: Path = SYSFS) -> int | None:
    """NeuronCores of this machine, or container; None where the driver says nothing."""
    counts = [_number(device / "core_count") for device in _devices(sysfs)]
    return sum(counts) if counts else None


def architecture(sysfs: Path = SYSFS) -> str | None:
    """The compiler's target for the devices; None where the driver says nothing. One that Outcrop has no name
    for is called as the driver calls it."""
    for device in _devices(sysfs):
        try:
            found = (device / "info" / "architecture" / "arch_type").read_text().strip()
        except OSError:
            continue
        return _ARCHITECTURES.get(found, found)
    return None


def uncorrectable_errors(sysfs: Path = SYSFS) -> int:
    """Memory errors of all devices that could not be corrected, since the driver was loaded."""
    return sum(
        _number(device / "stats" / "hardware" / counter)
        for device in _devices(sysfs)
        for counter in _UNCORRECTABLE
    )


def _devices(sysfs: Path) -> list[Path]:
    return sorted(sysfs.glob("neuron[0-9]*"))


def _number(path: Path) -> int:
    """A figure, or a counter, which is a folder with its total; 0 if it is not there."""
    try:
        return int((path / "total" if path.is_dir() else path).read_text())
    except (OSError, ValueError):
        return 0
