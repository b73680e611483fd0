"""What is asked of a model: so many requests a second, of so many tokens."""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FEWEST = 2
_COLUMNS = {
    "time": ("timestamp_ms", "timestamp", "TIMESTAMP", "Timestamp"),
    "input": ("input_tokens", "ContextTokens", "Request tokens"),
    "output": ("output_tokens", "GeneratedTokens", "Response tokens"),
}
"""Names of what a trace has: Outcrop's own, those of the Azure LLM inference traces
(https://github.com/Azure/AzurePublicDataset) and of BurstGPT (https://github.com/HPMLL/BurstGPT)."""


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
    """The means of a trace. Raises WorkloadError."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            times, inputs, outputs = _sums(_rows(path, lines))
    except OSError as error:
        raise WorkloadError(f"--load {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkloadError(f"--load {path}: not a trace that can be read: {error!r}") from None
    if len(times) < _FEWEST or not outputs or not inputs:
        raise WorkloadError(
            f"--load {path}: it has {len(times)} requests; a trace has 2 or more, with tokens"
        )
    span = max(times) - min(times)
    rps = (len(times) - 1) / span if span else None
    return Workload(inputs / len(times), outputs / len(times), rps, path.name)


def _rows(path: Path, lines: Iterable[str]) -> Iterator[Mapping[str, object]]:
    if path.suffix == ".csv":
        yield from csv.DictReader(lines)
    else:
        yield from (json.loads(line) for line in lines if line.strip())


def _sums(rows: Iterable[Mapping[str, object]]) -> tuple[list[float], float, float]:
    times, inputs, outputs = [], 0.0, 0.0
    for row in rows:
        name = _column(row, "time")
        times.append(_seconds(row[name], milliseconds=name.endswith("_ms")))
        inputs += float(str(row[_column(row, "input")]))
        outputs += float(str(row[_column(row, "output")]))
    return times, inputs, outputs


def _column(row: Mapping[str, object], what: str) -> str:
    for name in _COLUMNS[what]:
        if name in row:
            return name
    raise ValueError(f"no column for {what}: one of {', '.join(_COLUMNS[what])}")


def _seconds(value: object, *, milliseconds: bool) -> float:
    try:
        return float(str(value)) / (1000 if milliseconds else 1)
    except ValueError:
        return datetime.datetime.fromisoformat(str(value)).timestamp()
