"""What Linux says of a host's memory."""

from __future__ import annotations

from pathlib import Path


def read_meminfo(path: Path) -> dict[str, int]:
    """Bytes by the names of /proc/meminfo; empty where there is no such file."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if number.isdigit():
            found[name] = int(number) << 10
    return found
