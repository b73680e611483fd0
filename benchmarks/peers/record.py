"""What a run measured, as it is kept in a JSON file; the report is made from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
from benchmarks.load.figures import Figures
from benchmarks.peers.limits import Limits
from benchmarks.peers.peer import Precision


class Subject(msgspec.Struct, frozen=True):
    """A peer as it was run. weights: in what form it was given them. commands, ready_after (seconds from
    launch to ready): by model."""

    version: str
    weights: str
    commands: dict[str, str] = {}
    ready_after: dict[str, float] = {}


class Measurement(msgspec.Struct, frozen=True):
    """One peer's turn at one workload. round: from 1."""

    round: int
    workload: str
    peer: str
    figures: Figures


class Round(msgspec.Struct, frozen=True):
    """The machine at the beginning of a round, with every server paused. others: cores that other
    processes used meanwhile."""

    limits: Limits
    others: float


class Record(msgspec.Struct):
    """A whole run. failures: what could not be run, and why."""

    date: str
    machine: str
    command: str
    precision: Precision
    subjects: dict[str, Subject] = {}
    rounds: list[Round] = []
    measurements: list[Measurement] = []
    failures: list[str] = []

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def load(cls, path: Path) -> Record:
        return msgspec.json.decode(path.read_bytes(), type=cls)
