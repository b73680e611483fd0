"""Plans: what a model needs on an instance, before anything is compiled. No torch, network or weights."""

from outcrop_compile.plan.make import make_plan
from outcrop_compile.plan.plan import Plan, PlannedBucket
from outcrop_compile.plan.refusal import Limit, PlanRefused, Suggestion
from outcrop_compile.plan.request import Dtype, PlanRequest

__all__ = [
    "Dtype",
    "Limit",
    "Plan",
    "PlanRefused",
    "PlanRequest",
    "PlannedBucket",
    "Suggestion",
    "make_plan",
]
