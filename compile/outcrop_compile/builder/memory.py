"""How much memory this machine has for compilations."""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes that are free, or hold what can be dropped; no more than a container's limit leaves."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(fields["MemAvailable"].split()[0]) << 10
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))


def worker_count(graphs: int, one: int, available: int, cpus: int | None = None) -> int:
    """Compilations to run at the same time. one: bytes that the largest of them takes. 0 if not one fits."""
    return min(graphs, cpus or len(os.sched_getaffinity(0)), available // one)
