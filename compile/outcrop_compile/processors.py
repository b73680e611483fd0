"""What Linux lets this process have of a host's processors."""

from __future__ import annotations

import math
import os
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
    cores = set()
    for processor in os.sched_getaffinity(0):
        try:
            siblings = (topology / f"cpu{processor}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(processor)
        cores.add(siblings)
    return len(cores)
