"""Our histogram against prometheus_client's."""

from __future__ import annotations

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from outcrop.telemetry.histogram import Histogram

BOUNDS = (0.001, 0.5, 1.0, 60.0)
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100))


def exposition(registry: CollectorRegistry) -> list[str]:
    """Less the time of creation, which ours does not tell, and the order of the series."""
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


@given(st.lists(st.tuples(st.sampled_from("ab"), VALUES, st.integers(1, 4))))
def test_it_says_what_prometheus_clients_says(observations: list[tuple[str, float, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("x_seconds", "Text.", BOUNDS, "model")
    ours.register(mine)
    other = prometheus_client.Histogram("x_seconds", "Text.", ("model",), buckets=BOUNDS, registry=theirs)
    for label, value, times in observations:
        mine.of(label).observe(value, times)
        for _ in range(times):
            other.labels(label).observe(value)
    without_sum = [line for line in exposition(ours) if "_sum" not in line]
    assert without_sum == [line for line in exposition(theirs) if "_sum" not in line]
    for label in {label for label, _, _ in observations}:
        sums = [registry.get_sample_value("x_seconds_sum", {"model": label}) for registry in (ours, theirs)]
        assert abs((sums[0] or 0) - (sums[1] or 0)) < 1e-6


def test_without_a_label() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("x", "Text.", BOUNDS)
    ours.register(mine)
    mine.of().observe(0.75)
    prometheus_client.Histogram("x", "Text.", buckets=BOUNDS, registry=theirs).observe(0.75)
    assert exposition(ours) == exposition(theirs)
