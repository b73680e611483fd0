"""What a batch of calls amounts to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.load.completions import Call

from outcrop.percentile import percentile


@dataclass(frozen=True, slots=True)
class Figures:
    """Of calls made at once. ttft: from sending a request to the first piece of its answer, ms. tpot: from
    there to the last piece, for each further token, ms; 50th and 99th percentile over the calls.
    decode_rate: output tokens a second of the median call after its first. throughput: output tokens a
    second of all calls, from the first request sent to the last piece. seconds: that span."""

    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    decode_rate: float
    throughput: float
    seconds: float


def figures(calls: Sequence[Call]) -> Figures:
    firsts = [call.ttft_ms for call in calls]
    each = [call.tpot_ms for call in calls]
    seconds = max(call.pieces[-1] for call in calls) - min(call.begun for call in calls)
    tpot = statistics.median(each)
    return Figures(
        ttft_p50=statistics.median(firsts),
        ttft_p99=percentile(firsts, 0.99),
        tpot_p50=tpot,
        tpot_p99=percentile(each, 0.99),
        decode_rate=1000 / tpot,
        throughput=sum(call.output_tokens for call in calls) / seconds,
        seconds=seconds,
    )


def spread(values: Sequence[float]) -> Mapping[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
