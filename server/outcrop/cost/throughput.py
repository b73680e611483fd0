"""How many tokens a second an instance makes, and how that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from outcrop.cost.prices import Source

Kind = Literal["measured", "simulated", "published"]

_MOST_ERRORS = 0.01
_FEWEST_REQUESTS = 30


class ThroughputError(ValueError):
    """There is no figure to go by, or none that can be relied on."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Output tokens a second of one instance, with requests of this shape. source: in words."""

    output_tokens_per_s: float
    input_tokens: float
    output_tokens: float
    kind: Kind
    source: str


class Published(msgspec.Struct, frozen=True):
    """A measurement that somebody published. ttft_ms, tpot_ms: medians."""

    model: str
    instance: str
    config: str
    input_tokens: int
    output_tokens: int
    output_tokens_per_s: float
    ttft_ms: float
    tpot_ms: float
    source: str


class PublishedFile(msgspec.Struct, frozen=True):
    sources: dict[str, Source]
    measurements: tuple[Published, ...]


class Measured(msgspec.Struct, frozen=True):
    """What is taken from a measurement in JSON, such as `outcrop bench --json` writes. The means of tokens
    are those of the requests that were answered. kind, instance: what `outcrop simulate --json` says of
    itself."""

    output_tokens_per_s: float
    mean_input_tokens: float
    mean_output_tokens: float
    completed: int
    errors: int = 0
    kind: Literal["measured", "simulated"] = "measured"
    instance: str = ""


def published() -> PublishedFile:
    """The measurements that come with Outcrop."""
    data = (files("outcrop.cost") / "data" / "published.json").read_bytes()
    return msgspec.json.decode(data, type=PublishedFile)


def find_published(model: str, instance: str, ratio: float) -> Throughput | None:
    """Of those of a model (by Outcrop's name, such as Llama-3.1-8B) on an instance the one whose requests
    have the mixture of input and output tokens that is nearest; of several, the fastest."""
    known = published()
    rows = [row for row in known.measurements if (row.model, row.instance) == (model, instance)]
    if not rows:
        return None
    best = min(rows, key=lambda row: (_distance(row, ratio), -row.output_tokens_per_s))
    source = known.sources[best.source]
    return Throughput(
        best.output_tokens_per_s,
        best.input_tokens,
        best.output_tokens,
        "published",
        f"{best.model} on {best.instance}, {best.config}, {best.input_tokens} -> {best.output_tokens} "
        f"tokens: {source.name} ({source.date})",
    )


def _distance(row: Published, ratio: float) -> float:
    its = row.input_tokens / row.output_tokens
    return max(its, ratio) / min(its, ratio)


def published_pairs() -> Sequence[tuple[str, str]]:
    """The models and instances that there are figures of."""
    return sorted({(row.model, row.instance) for row in published().measurements})


def read_measured(path: Path, instance: str) -> Throughput:
    """Of a measurement, or a simulation of `instance`. Raises ThroughputError, also for a run that failed too
    often or was too short to say anything."""
    try:
        run = msgspec.json.decode(path.read_bytes(), type=Measured)
    except OSError as error:
        raise ThroughputError(f"--from {path}: {error.strerror or error}") from None
    except msgspec.DecodeError as error:
        raise ThroughputError(
            f"--from {path}: {error}; it is to be what `outcrop bench --json` wrote"
        ) from None
    if run.instance not in ("", instance):
        raise ThroughputError(f"--from {path}: it is of {run.instance}, not of {instance}")
    if run.completed < _FEWEST_REQUESTS:
        raise ThroughputError(
            f"--from {path}: {run.completed} requests were answered; it takes {_FEWEST_REQUESTS}"
        )
    if run.errors > _MOST_ERRORS * (run.completed + run.errors):
        raise ThroughputError(
            f"--from {path}: {run.errors} of {run.completed + run.errors} requests failed; a cost of what "
            "does not work means nothing"
        )
    if min(run.output_tokens_per_s, run.mean_input_tokens, run.mean_output_tokens) <= 0:
        raise ThroughputError(f"--from {path}: no tokens were counted")
    return Throughput(
        run.output_tokens_per_s,
        run.mean_input_tokens,
        run.mean_output_tokens,
        run.kind,
        f"{path.name}, {run.completed} requests of {run.mean_input_tokens:.0f} -> "
        f"{run.mean_output_tokens:.0f} tokens; what the server did under that load, maybe less than it can",
    )
