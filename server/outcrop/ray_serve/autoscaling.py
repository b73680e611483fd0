"""How many replicas of a model there should be."""

from __future__ import annotations

from typing import Any

KV_USE = "kv_use"
"""A metric of each replica: the share of its KV blocks that requests hold."""


class DemandPolicy:
    """Ray's autoscaling policy (`policy_function` of an `autoscaling_config`, which bounds and delays what is
    asked for here): enough replicas that each has `target_ongoing_requests` at most, those that wait
    included, and that requests hold no more than a share of their KV memory. Long conversations fill the
    memory with few requests; beyond that share, engines begin to preempt."""

    def __init__(self, kv_use: float = 0.8) -> None:
        """kv_use: the share to aim at, over 0 to 1."""
        if not 0 < kv_use <= 1:
            raise ValueError(f"kv_use is {kv_use}; it is a share of the KV memory, more than 0 and up to 1")
        self._kv_use = kv_use

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """context: Ray's `AutoscalingContext`. The number of replicas, and no state."""
        replicas: int = context.current_num_replicas
        if replicas == 0:
            return context.target_num_replicas, {}
        queued: float = context.total_num_requests / context.config.get_target_ongoing_requests()
        shares = (context.aggregated_metrics or {}).get(KV_USE, {}).values()
        filled: float = replicas * sum(shares) / len(shares) / self._kv_use if shares else 0.0
        return max(queued, filled), {}
