"""What is asked of a model: so many requests a second, of so many tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

_FEWEST = 2

Column = npt.NDArray[np.float64]


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
        "rps may be left out), or give a trace: JSON Lines or CSV with timestamp_ms, input_tokens "
        "and output_tokens"
    )


def read_trace(path: Path) -> Workload:
    """The means of a trace: JSON Lines, or CSV as `outcrop simulate --trace` reads it. Raises
    WorkloadError."""
    try:
        if path.suffix == ".jsonl":
            times, inputs, outputs = _read_lines(path)
        else:
            from outcrop.simulate.trace import NS
            from outcrop.simulate.trace_file import read_trace as read_csv

            trace = read_csv(path)
            times, inputs, outputs = (
                each.astype(np.float64) for each in (trace.arrival / NS, trace.prompt, trace.output)
            )
    except OSError as error:
        raise WorkloadError(f"--load {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise WorkloadError(f"--load {path}: not a trace that can be read: {error}") from None
    if len(times) < _FEWEST or min(inputs.mean(), outputs.mean()) <= 0:
        raise WorkloadError(
            f"--load {path}: it has {len(times)} requests; a trace has 2 or more, with tokens"
        )
    span = float(times.max() - times.min())
    rps = (len(times) - 1) / span if span else None
    return Workload(float(inputs.mean()), float(outputs.mean()), rps, path.name)


def _read_lines(path: Path) -> tuple[Column, Column, Column]:
    """Seconds, input and output tokens of each line."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    columns = (
        [float(row["timestamp_ms"]) / 1000 for row in rows],
        [float(row["input_tokens"]) for row in rows],
        [float(row["output_tokens"]) for row in rows],
    )
    times, inputs, outputs = (np.array(column) for column in columns)
    return times, inputs, outputs
