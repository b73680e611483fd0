"""How much memory this machine has for compilations."""

from __future__ import annotations

from pathlib import Path

from outcrop_compile.meminfo import read_meminfo

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes that are free, or hold what can be dropped; no more than a container's limit leaves."""
    free = read_meminfo(meminfo)["MemAvailable"]
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
