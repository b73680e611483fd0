"""Counters and gauges of one engine, sent with every step frame and exported by `outcrop.telemetry`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class EngineStats(msgspec.Struct, array_like=True, gc=False):
    """Gauges are current; the rest are totals since the engine process started.

    *_tokens count tokens; kv_* count blocks; prefix_queries and prefix_hits count prompt tokens looked up
    in and served from the prefix cache. device_*_us count microseconds: those that steps ran, and those that
    the device waited for its next step although there were requests to run. host_busy_us: that the engine's
    loop worked, which is all but its waiting for the device and for requests.
    """

    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    prefill_steps: int = 0
    decode_steps: int = 0
    padded_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    compiles_after_warmup: int = 0
    device_busy_us: int = 0
    device_idle_us: int = 0
    host_busy_us: int = 0

    @classmethod
    def sum(cls, parts: Iterable[EngineStats]) -> EngineStats:
        """Of several engines together."""
        columns = zip(*map(msgspec.structs.astuple, parts), strict=True)
        return cls(*map(sum, columns))


class Routing(msgspec.Struct):
    """How often what decided: prefix, a replica holds the prompt's beginning; session, it had the session's
    last request; load, it had the fewest tokens in flight. moved: requests sent on from a replica that was
    lost."""

    prefix: int = 0
    session: int = 0
    load: int = 0
    moved: int = 0
