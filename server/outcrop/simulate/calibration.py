"""The prices of a step's work, fitted to published measurements, and how far off they are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from outcrop.simulate.anchors import Anchor, anchors
from outcrop.simulate.step_time import parameters_data
from outcrop_compile.bucket import StepKind

_PULL = 0.02
"""How much a price one `scale` away from what is expected weighs, against an anchor missed by 100 %."""
_SWEEPS = 2000
_STILL = 1e-9
"""Scales that no price moves any more by."""

Prices = dict[str, float]


@dataclass(frozen=True, slots=True)
class Miss:
    """How far the model is from an anchor: error 0.1 is 10 % too long."""

    anchor: Anchor
    ms: float

    @property
    def error(self) -> float:
        return self.ms / self.anchor.ms - 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """misses: of every anchor, in order, with the prices fitted to half of them. family_misses: the same,
    each predicted by prices fitted to all anchors of other families: what to expect of a machine or model of
    which nothing was published."""

    prices: Prices
    misses: tuple[Miss, ...]
    family_misses: tuple[Miss, ...]

    def median_error(self, kind: StepKind | None = None, *, held_out: bool = True) -> float:
        """Of the absolute errors, of anchors that were held out, or of those fitted to."""
        return median(
            abs(miss.error)
            for miss in self.misses
            if miss.anchor.fitted is not held_out and kind in (None, miss.anchor.bucket.kind)
        )

    def worst(self, count: int) -> list[Miss]:
        """The largest errors among anchors held out."""
        held = [miss for miss in self.misses if not miss.anchor.fitted]
        return sorted(held, key=lambda miss: -abs(miss.error))[:count]


def calibrate() -> Calibration:
    """Fit to half of the anchors, measure on all."""
    known = anchors()
    prices = fit([anchor for anchor in known if anchor.fitted])
    family_prices = {
        family: fit([anchor for anchor in known if anchor.family != family])
        for family in dict.fromkeys(anchor.family for anchor in known)
    }
    return Calibration(
        prices,
        tuple(Miss(anchor, predict(prices, anchor)) for anchor in known),
        tuple(Miss(anchor, predict(family_prices[anchor.family], anchor)) for anchor in known),
    )


def predict(prices: Mapping[str, float], anchor: Anchor) -> float:
    """Milliseconds."""
    return 1e3 * sum(prices[name] * amount for name, amount in anchor.work.items())


def fit(known: Sequence[Anchor]) -> Prices:
    """The prices, none of them negative, that make the least of the squared relative errors, with a weak pull
    towards what is expected of each."""
    entries = parameters_data()["prices"]
    scales = np.array([entry["scale"] for entry in entries.values()])
    expected = np.array([entry["expected"] for entry in entries.values()])
    rows = [[1e3 * anchor.work.get(name, 0.0) / anchor.ms for name in entries] for anchor in known]
    pull = np.sqrt(_PULL)
    matrix = np.concatenate([np.array(rows) * scales, pull * np.eye(len(scales))])
    target = np.concatenate([np.ones(len(known)), pull * expected / scales])
    solution = _least_squares(matrix, target) * scales
    return dict(zip(entries, solution.tolist(), strict=True))


def _least_squares(matrix: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Any:
    """x >= 0 with the least |matrix x - target|, by coordinate descent: the pull makes it strictly convex."""
    square, side = matrix.T @ matrix, matrix.T @ target
    found = np.zeros(len(side))
    for _ in range(_SWEEPS):
        before = found.copy()
        for place in range(len(found)):
            gradient = side[place] - square[place] @ found
            found[place] = max(0.0, found[place] + gradient / square[place, place])
        if np.abs(found - before).max() < _STILL:
            break
    return found


def write_parameters(prices: Prices, path: Path) -> None:
    """The parameters file with these prices."""
    data = parameters_data()
    for name, price in prices.items():
        data["prices"][name]["value"] = float(f"{price:.6g}")
    data["host"]["request"]["seconds"] = data["prices"]["request"]["value"]
    path.write_text(json.dumps(data, indent=2) + "\n")
