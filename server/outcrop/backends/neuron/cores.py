"""Which NeuronCores a replica has."""

from __future__ import annotations

import re

_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")

VISIBLE_CORES = "NEURON_RT_VISIBLE_CORES"


def parse_cores(text: str) -> range:
    """`3` or `0-7`, as NEURON_RT_VISIBLE_CORES takes them: the last one included. Raises ValueError."""
    match = _RANGE.fullmatch(text.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    if last < first:
        raise ValueError(f"{text!r} is not a range of NeuronCores; write the first and the last, such as 0-7")
    return range(first, last + 1)


def format_cores(cores: range) -> str:
    return str(cores.start) if len(cores) == 1 else f"{cores.start}-{cores.stop - 1}"


def cores_of(wanted: str | None, tp: int) -> range:
    """Of a replica of `tp` ranks: those of the setting, or the machine's first. Raises ValueError."""
    if wanted is None:
        return range(tp)
    cores = parse_cores(wanted)
    if len(cores) != tp:
        raise ValueError(
            f"cores {wanted} are {len(cores)}, but the artifact is built for {tp} (target.tp): give "
            f"--cores {format_cores(range(cores.start, cores.start + tp))}, or build it again with "
            f"outcrop compile build --tp {len(cores)}"
        )
    return cores
