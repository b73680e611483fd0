"""What is asked of a model: so many requests a second, of so many tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outcrop.simulate import trace_file

_FEWEST = 2


class WorkloadError(ValueError):
    """A load that cannot be read, or makes no sense; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Workload:
    """rps: requests a second on average, None where it is not known. input_tokens, output_tokens: of the mean
    request. name: what it was given as."""

    input_tokens: float
    output_tokens: float
    rps: float | None
    name: str

    @property
    def ratio(self) -> float:
        """Input tokens for each output token."""
        return self.input_tokens / self.output_tokens

    @classmethod
    def parse(cls, text: str) -> Workload:
        """`rps=2,in=1500,out=250`, of which rps may be left out, or a file. Raises WorkloadError."""
        if "=" not in text or Path(text).exists():
            return read_trace(Path(text))
        try:
            given = {name.strip(): float(value) for name, _, value in _pairs(text)}
        except ValueError:
            raise _unreadable(text) from None
        if not {"in", "out"} <= given.keys() <= {"in", "out", "rps"}:
            raise _unreadable(text)
        load = cls(given["in"], given["out"], given.get("rps"), text)
        if any(not math.isfinite(value) or value <= 0 for value in given.values()):
            raise WorkloadError(f"--load {text}: each number has to be more than 0")
        return load


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    return (part.partition("=") for part in text.split(","))


def _unreadable(text: str) -> WorkloadError:
    return WorkloadError(
        f"--load {text}: write rps=2,in=1500,out=250 (requests a second, and tokens of the mean request; "
        f"rps may be left out), or give a trace: JSON Lines or CSV with {trace_file.OWN.columns}"
    )


def read_trace(path: Path) -> Workload:
    """The means of a trace, as `outcrop simulate --trace` reads it. Raises WorkloadError."""
    try:
        trace = trace_file.read_trace(path)
    except trace_file.TraceFileError as error:
        raise WorkloadError(f"--load {error}") from None
    if len(trace) < _FEWEST:
        raise WorkloadError(f"--load {path}: it has {len(trace)} requests; a trace has {_FEWEST} or more")
    return Workload(float(trace.prompt.mean()), float(trace.output.mean()), trace.rate or None, path.name)
