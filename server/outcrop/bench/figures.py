"""What a batch of calls amounts to; definitions are those of the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from outcrop.bench.call import Call
from outcrop.percentile import percentile
from outcrop.simulate.slo import Slo


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Figures:
    """completed: answers that came to their end; errors: the others, and `errors_by_kind`. offered_per_s:
    requests that were due, over the time that they were due in; requests_per_s: completed, over `seconds`,
    from the first request sent to the end of the last answer. goodput_per_s and good_share: None without an
    SLO; the share is of all requests. delay: by how much requests were sent late."""

    completed: int
    errors: int
    errors_by_kind: dict[str, int]
    seconds: float
    offered_per_s: float
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    mean_input_tokens: float
    mean_output_tokens: float
    ttft_ms: Spread
    tpot_ms: Spread
    itl_ms: Spread
    e2e_ms: Spread
    delay_ms: Spread
    goodput_per_s: float | None
    good_share: float | None


def figures(calls: Sequence[Call], slo: Slo | None = None) -> Figures:
    """Of calls that have all ended, one way or another."""
    done = [call for call in calls if call.answered]
    failed = Counter(call.error or "unfinished" for call in calls if not call.answered)
    ends = [call.ended for call in done if call.ended is not None]
    begun = min((call.begun for call in calls), default=0.0)
    seconds = max(max(ends, default=begun) - begun, 1e-9)
    ttft = [call.ttft_ms for call in done]
    tpot = [call.tpot_ms for call in done]
    within = max((call.due for call in calls), default=0.0) - min((call.due for call in calls), default=0.0)
    good = None if slo is None else int(slo.met(np.array(ttft), np.array(tpot)).sum())
    input_tokens, output_tokens = sum(c.input_tokens for c in done), sum(c.output_tokens for c in done)
    count = max(len(done), 1)
    return Figures(
        completed=len(done),
        errors=sum(failed.values()),
        errors_by_kind=dict(failed),
        seconds=seconds,
        offered_per_s=(len(calls) - 1) / within if within > 0 else 0.0,
        requests_per_s=len(done) / seconds,
        input_tokens_per_s=input_tokens / seconds,
        output_tokens_per_s=output_tokens / seconds,
        mean_input_tokens=input_tokens / count,
        mean_output_tokens=output_tokens / count,
        ttft_ms=_spread(ttft),
        tpot_ms=_spread(tpot),
        itl_ms=_spread([1000 * (b - a) for call in done for a, b in pairwise(call.pieces)]),
        e2e_ms=_spread([call.e2e_ms for call in done]),
        delay_ms=_spread([1000 * max(0.0, call.begun - call.due) for call in calls]),
        goodput_per_s=None if good is None else good / seconds,
        good_share=None if good is None else good / max(len(calls), 1),
    )


def _spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    p50, p90, p95, p99 = (percentile(values, share) for share in (0.5, 0.9, 0.95, 0.99))
    return Spread(sum(values) / len(values), p50, p90, p95, p99, max(values))
