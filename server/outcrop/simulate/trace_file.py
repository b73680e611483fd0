"""Requests recorded elsewhere, read from a file of CSV or JSON Lines.

Three kinds of columns are known, by their names:

- `TIMESTAMP,ContextTokens,GeneratedTokens`: Azure's LLM inference traces of 2023 and 2024
  (https://github.com/Azure/AzurePublicDataset); a date and time each;
- `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`: BurstGPT
  (https://github.com/HPMLL/BurstGPT), some files with more columns; seconds;
- `timestamp_ms,input_tokens,output_tokens`: your own; milliseconds. In a file `.jsonl`, an object a line has
  these.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np

from outcrop.simulate.trace import NS, Trace

Row = tuple[int, int, int]
"""Nanoseconds since any moment, tokens in, tokens out."""


class TraceFileError(ValueError):
    """The file cannot be read as a trace; the message says why."""


@dataclass(frozen=True, slots=True)
class _Format:
    """Names of columns, and how a time is read: nanoseconds since any moment."""

    name: str
    time: str
    prompt: str
    output: str
    read_time: Callable[[str], int]

    @property
    def columns(self) -> str:
        return f"{self.time},{self.prompt},{self.output}"


def _date(text: str) -> int:
    """Of up to nine digits of a second, with or without an offset from UTC."""
    moment, dot, fraction = text.strip().partition(".")
    offset = ""
    for sign in ("+", "Z"):
        if sign in fraction:
            fraction, _, rest = fraction.partition(sign)
            offset = "+00:00" if sign == "Z" else sign + rest
    if dot and not fraction.isdigit():
        raise ValueError(text)
    read = datetime.fromisoformat(moment + offset)
    if read.tzinfo is None:
        read = read.replace(tzinfo=UTC)
    return round(read.timestamp()) * NS + int(fraction[:9].ljust(9, "0") or 0)


OWN = _Format(
    "outcrop", "timestamp_ms", "input_tokens", "output_tokens", lambda text: round(float(text) * 1e6)
)

_FORMATS = (
    _Format("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", _date),
    _Format(
        "BurstGPT", "Timestamp", "Request tokens", "Response tokens", lambda text: round(float(text) * NS)
    ),
    OWN,
)


def read_trace(path: Path, *, limit: int | None = None, speed: float = 1.0) -> Trace:
    """The requests of a file, in order of time, the first at 0. Plain or compressed with gzip (`.gz`).

    Rows that say nothing useful (a time or number that cannot be read, no tokens in or out, as BurstGPT has
    of failed calls) are left out and counted; JSON Lines, which are your own, have to be readable throughout.
    limit: of requests read. speed: 2 makes them come twice as fast. Raises TraceFileError."""
    if not 0 < speed < math.inf:
        raise TraceFileError(f"--speed {speed:g}: it has to be above 0")
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    try:
        with _open(path) as file:
            if ".jsonl" in path.suffixes:
                name, found = OWN.name, _read_lines(path, file)
            else:
                name, found = _read_rows(path, file)
            for parsed in found:
                if isinstance(parsed, str):
                    skipped[parsed] += 1
                else:
                    rows.append(parsed)
                    if len(rows) == limit:
                        break
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise TraceFileError(f"{path}: {error}") from None
    if not rows:
        reasons = (
            "; ".join(f"{count} rows: {reason}" for reason, count in skipped.items()) or "it has no rows"
        )
        raise TraceFileError(f"{path}: no request can be read from it ({reasons})")
    rows.sort(key=lambda row: row[0])
    columns = np.array(rows, dtype=np.int64)
    arrival = np.rint((columns[:, 0] - columns[0, 0]) / speed).astype(np.int64)
    return Trace(f"{name}: {path.name}", arrival, columns[:, 1], columns[:, 2], tuple(skipped.items()))


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_rows(path: Path, file: TextIO) -> tuple[str, Iterator[Row | str]]:
    """The name of the kind of file, and of each row what it says, or why it is left out."""
    reader = csv.DictReader(file)
    header = reader.fieldnames or []
    for known in _FORMATS:
        if {known.time, known.prompt, known.output} <= set(header):
            break
    else:
        wanted = "; ".join(each.columns for each in _FORMATS)
        raise TraceFileError(
            f"{path}: its columns are {','.join(header) or 'missing'}; known are those with {wanted}"
        )
    return known.name, _parse(reader, known)


def _parse(reader: csv.DictReader[str], known: _Format) -> Iterator[Row | str]:
    for row in reader:
        try:
            time = known.read_time(row[known.time])
        except (TypeError, ValueError, OverflowError):
            yield f"{known.time} is no time"
            continue
        try:
            prompt, output = int(row[known.prompt]), int(row[known.output])
        except (TypeError, ValueError):
            yield f"{known.prompt} or {known.output} is no whole number"
            continue
        yield _checked(time, prompt, output)


def _read_lines(path: Path, file: TextIO) -> Iterator[Row | str]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            parsed = OWN.read_time(row[OWN.time]), int(row[OWN.prompt]), int(row[OWN.output])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise TraceFileError(
                f"{path}, line {number}: it has to be an object with {OWN.columns} ({error!r})"
            ) from None
        yield _checked(*parsed)


def _checked(time: int, prompt: int, output: int) -> Row | str:
    return "no tokens in or out" if prompt < 1 or output < 1 else (time, prompt, output)
