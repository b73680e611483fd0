"""What a service tier means here: a place in the scheduler's queue, not a price."""

from __future__ import annotations

PRIORITIES = {"reserved": 20, "priority": 10, "default": 0, "auto": 0, "flex": -10}
"""`GenerationRequest.priority` of each tier: higher runs first, and is preempted last."""

PROVISIONED = 30
"""Priority of what a Provisioned Throughput has a place for, ahead of every tier."""


def priority_of(tier: str | None) -> int:
    return PRIORITIES[tier or "default"]
