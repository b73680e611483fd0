"""What Linux lets this process have of a host's processors."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_processors(quota: Path = _QUOTA) -> int:
    """Those that it may run on, and no more of them than its control group (a container's limit) pays for:
    threads beyond that would only be made to wait for each other.

    quota: a file as cpu.max of cgroup v2, "MICROSECONDS PERIOD" or "max PERIOD".
    """
    number = len(os.sched_getaffinity(0))
    try:
        time, period = quota.read_text().split()
        return number if time == "max" else max(1, min(number, math.ceil(int(time) / int(period))))
    except (OSError, ValueError):
        return number


def usable_cores(topology: Path = _TOPOLOGY) -> int:
    """Among the processors that it may run on, those that do not share a core with another of them."""
    return len(_cores(topology))


def divided_processors(parts: int, topology: Path = _TOPOLOGY) -> list[tuple[int, ...]]:
    """The processors that it may run on, divided into parts of whole cores, those of a part side by side.
    Parts share cores only where there are more parts than cores."""
    cores = _cores(topology)
    if parts > len(cores):
        return [cores[part % len(cores)] for part in range(parts)]
    bounds = [len(cores) * part // parts for part in range(parts + 1)]
    return [
        tuple(processor for core in cores[first:last] for processor in core)
        for first, last in pairwise(bounds)
    ]


def _cores(topology: Path) -> list[tuple[int, ...]]:
    """The processors of each core, those of a socket side by side."""
    cores: dict[tuple[int, str], list[int]] = {}
    for processor in sorted(os.sched_getaffinity(0)):
        siblings = _fact(topology, processor, "thread_siblings_list") or str(processor)
        socket = int(_fact(topology, processor, "physical_package_id") or 0)
        cores.setdefault((socket, siblings), []).append(processor)
    return [tuple(found) for _, found in sorted(cores.items(), key=lambda core: (core[0][0], core[1]))]


def _fact(topology: Path, processor: int, name: str) -> str:
    """What the system says of a processor; "" where it does not."""
    try:
        return (topology / f"cpu{processor}/topology" / name).read_text().strip()
    except OSError:
        return ""
