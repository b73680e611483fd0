"""What suits a model on this machine, found by trying: threads, and how long a prompt's step may be."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from outcrop_compile.processors import usable_cores, usable_processors

SUFFIX = ".calibration"
"""Of the file that keeps it, which has the name of the model's packed weights otherwise."""
MOST_PREFILL = 512
"""Tokens of the largest prefill step: beyond it a CPU gains no throughput and running answers stall."""
_LEAST_PREFILL = 64
_STALL = 1.0
"""Seconds that the next token of a running answer may wait for a prompt's step, if steps can be so short."""
_NOISE = 0.97
"""Fewer threads leave processors to others: more must be faster by more than measurements differ."""


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """machine: that it was found on, see `machine`. threads: of the kernels. prefill_tokens: of the largest
    prefill step."""

    machine: str
    threads: int
    prefill_tokens: int


def machine() -> str:
    """What a calibration depends on beside the model and the kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {usable_cores()} cores, {usable_processors()} processors"


def thread_counts() -> tuple[int, ...]:
    """Those worth trying, in ascending order: a thread a core, and one a processor if cores have several."""
    processors = usable_processors()
    return tuple(sorted({min(usable_cores(), processors), processors}))


def best_threads(counts: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The count with which steps are fastest. seconds: of some steps with so many threads."""
    best, *others = counts
    if not others:
        return best
    least = seconds(best)
    for count in others:
        if (taken := seconds(count)) < least * _NOISE:
            best, least = count, taken
    return best


def prefill_limit(seconds_per_token: float) -> int:
    """Tokens of the largest prefill step, a multiple of 16."""
    within = int(_STALL / max(seconds_per_token, 1e-9)) // 16 * 16
    return max(_LEAST_PREFILL, min(MOST_PREFILL, within))


def recall(path: Path | None) -> Calibration | None:
    """What was found before on this machine."""
    if path is None:
        return None
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
        if found.machine == machine():
            return found
    return None


def remember(path: Path | None, calibration: Calibration) -> None:
    """For the next start; a server runs as well without."""
    if path is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(calibration))
