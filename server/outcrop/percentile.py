"""Percentiles, the same for whatever is measured or simulated."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that more than `share` of them do not exceed: of a few values the highest counts."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
