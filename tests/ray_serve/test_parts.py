"""What of the Ray Serve application needs no Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from outcrop.engine.stats import EngineStats
from outcrop.ray_serve.autoscaling import KV_USE, DemandPolicy
from outcrop.ray_serve.tally import StatsTally


def context(requests: float, *shares: float, replicas: int = 2) -> SimpleNamespace:
    """Of Ray's AutoscalingContext what the policy reads, each replica to have 10 requests."""
    return SimpleNamespace(
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        total_num_requests=requests,
        aggregated_metrics={KV_USE: dict(enumerate(shares))},
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 10),
    )


def test_replicas_follow_the_greater_of_queue_and_kv_memory() -> None:
    policy = DemandPolicy(kv_use=0.5)
    assert policy(context(40, 0.1, 0.1)) == (4.0, {})
    assert policy(context(2, 0.75, 1.0)) == (3.5, {})
    assert policy(context(2, 0.1, 0.1)) == (pytest.approx(0.4), {})
    assert policy(context(7)) == (pytest.approx(0.7), {})  # before replicas have told of their memory
    assert policy(context(0, replicas=0)) == (0, {})
    with pytest.raises(ValueError, match=r"kv_use is 80"):
        DemandPolicy(kv_use=80)


def test_totals_never_fall_when_engines_go() -> None:
    tally = StatsTally()
    tally.update({"a": EngineStats(running=2, generation_tokens=10), "b": EngineStats(running=1)})
    assert (tally.total.running, tally.total.generation_tokens) == (3, 10)
    tally.update({"b": EngineStats(running=4, generation_tokens=5)})
    assert (tally.total.running, tally.total.generation_tokens) == (4, 15)
    tally.update({"b": EngineStats(generation_tokens=6), "c": EngineStats(generation_tokens=1)})
    assert (tally.total.running, tally.total.generation_tokens) == (0, 17)
