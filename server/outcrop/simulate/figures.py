"""What a run shows: latencies, throughput, goodput, waste and cost.

Definitions, those of `outcrop.bench`: TTFT from a client's call to the first token; TPOT the time from the
first token to the last over one token less; goodput counts the requests that keep to both limits of the SLO;
throughput is over the time from the first arrival to the last token."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from outcrop.percentile import percentile
from outcrop.simulate.fleet import Run
from outcrop.simulate.slo import Slo, Times
from outcrop.simulate.trace import NS

_MS = 1e6  # nanoseconds


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles, in milliseconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """requests: completed ones, beside `refused`, which no context holds. seconds: from the first arrival to
    the last token. queue: from arrival until a prompt's first step is planned. gap: the longest between two
    tokens of an answer. good_share: of all requests, those that kept to the SLO; goodput: so many a second.
    busy: share of time that devices ran. prefill_padding, decode_padding: shares of the tokens that steps had
    room for and nobody wanted. kv_peak: share of the KV cache in use at most. dollars: of an hour of the
    instance, None if not known; per_million_*: tokens."""

    requests: int
    refused: int
    seconds: float
    ttft: Spread
    tpot: Spread
    latency: Spread
    queue: Spread
    gap: Spread
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    good_share: float
    goodput: float
    holds_slo: bool
    busy: float
    preemptions: int
    prefill_steps: int
    decode_steps: int
    prefill_padding: float
    decode_padding: float
    kv_peak: float
    dollars_per_hour: float | None
    per_million_output: float | None
    per_million_tokens: float | None

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def figures(run: Run, slo: Slo, dollars_per_hour: float | None = None) -> Figures:
    lives, request_ns = run.lives, run.machine.host.request * NS
    done = lives.answered
    first = (lives.first - lives.arrival + request_ns)[done] / _MS
    latency = (lives.last - lives.arrival + request_ns)[done] / _MS
    rest = np.maximum(lives.tokens - 1, 1)[done]
    tpot = (lives.last - lives.first)[done] / _MS / rest
    span = max(1, int(lives.last.max()) - int(lives.arrival[0])) / NS
    good = int(slo.met(first, tpot).sum())
    total = len(lives.trace)
    out_rate = int(lives.tokens[done].sum()) / span
    in_rate = int(lives.trace.prompt[done].sum()) / span
    dollars = None if dollars_per_hour is None else dollars_per_hour / 3600 * 1e6
    machine = run.machine
    blocks = machine.capabilities.num_blocks
    return Figures(
        requests=int(done.sum()),
        refused=lives.refused,
        seconds=span,
        ttft=_spread(first),
        tpot=_spread(tpot),
        latency=_spread(latency),
        queue=_spread((lives.begun - lives.arrival)[done] / _MS),
        gap=_spread(lives.longest[done] / _MS),
        requests_per_s=int(done.sum()) / span,
        input_tokens_per_s=in_rate,
        output_tokens_per_s=out_rate,
        good_share=good / total,
        goodput=good / span,
        holds_slo=good >= slo.share * total,
        busy=(run.used("busy_prefill") + run.used("busy_decode")) / NS / span / machine.replicas,
        preemptions=run.counted("preemptions"),
        prefill_steps=run.counted("prefill_steps"),
        decode_steps=run.counted("decode_steps"),
        prefill_padding=_unused(run, "prefill"),
        decode_padding=_unused(run, "decode"),
        kv_peak=max(usage.kv_peak for usage in run.usage) / blocks,
        dollars_per_hour=dollars_per_hour,
        per_million_output=None if dollars is None or not out_rate else dollars / out_rate,
        per_million_tokens=None if dollars is None or not out_rate else dollars / (in_rate + out_rate),
    )


def _unused(run: Run, kind: str) -> float:
    lanes = run.used(f"lanes_{kind}")
    return 1 - run.used(f"used_{kind}") / lanes if lanes else 0.0


def _spread(times: Times) -> Spread:
    if not len(times):
        return Spread(0.0, 0.0, 0.0)
    ordered = np.sort(times).tolist()
    return Spread(*(percentile(ordered, share) for share in (0.5, 0.9, 0.99)))
