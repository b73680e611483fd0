"""Why there is no plan, and what there is one for."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from outcrop_compile.plan.request import PlanRequest


class Limit(enum.StrEnum):
    """What stands in the way."""

    DEGREE = "tp"
    CONTEXT = "context"
    MEMORY = "memory"
    LENGTH = "max_model_len"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A request that is admitted. changes: the options that differ, as one writes them."""

    request: PlanRequest
    changes: str


class PlanRefused(ValueError):
    """The request cannot be met; the message says what does not fit. suggestions: what would, each one
    admitted as it stands; none where nothing would do."""

    def __init__(self, limit: Limit, reason: str, suggestions: tuple[Suggestion, ...] = ()) -> None:
        super().__init__(reason)
        self.limit, self.reason, self.suggestions = limit, reason, suggestions
