"""A Prometheus histogram that costs little to feed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Distribution:
    """Observations counted by bucket. bounds: the largest value of each bucket but the last, ascending."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


class Histogram(Collector):
    """One distribution for each value of a label, or a single one where `label` is "".

    prometheus_client's own takes two locks for each observation, which is much for something that happens
    once a token: this one has none. It is fed and scraped on the event loop's thread alone.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str = "") -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._label = label
        self._distributions: dict[str, Distribution] = {}

    def of(self, value: str = "") -> Distribution:
        """The distribution of one value of the label."""
        return self._distributions.setdefault(value, Distribution(self._bounds))

    def collect(self) -> Iterable[Metric]:
        labels = [self._label] if self._label else []
        family = HistogramMetricFamily(self._name, self._text, labels=labels)
        for value, distribution in self._distributions.items():
            distribution.add_to(family, [value] if self._label else [])
        yield family
