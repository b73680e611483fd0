"""Answers of InvokeModel and InvokeModelWithResponseStream, whichever family's body was asked for."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from outcrop.api import eventstream
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.guardrails.guard import Guard
from outcrop.catalog.model import TextDelta

_CHUNK = eventstream.event("chunk")
_METRICS = "amazon-bedrock-invocationMetrics"
_encode = msgspec.json.Encoder().encode


async def frames(
    growing: GrowingAnswer,
    deltas: AsyncGenerator[TextDelta, None],
    watch: Stopwatch,
    guard: Guard | None = None,
) -> AsyncGenerator[bytes, None]:
    """The answer as chunk events, as its tokens come. The last chunk carries the invocation's metrics, and
    what the guardrail did."""
    first_byte_ms: int | None = None
    async with aclosing(deltas):
        async for delta in deltas:
            if first_byte_ms is None:
                first_byte_ms = watch.elapsed_ms()
            chunks = list(growing.push(delta))
            if delta.end is not None:
                chunks[-1] |= {_METRICS: _metrics(delta, watch, first_byte_ms)}
                if guard is not None:
                    chunks[-1] |= guard.native_members()
            if chunks:
                yield b"".join(map(_frame, chunks))


def _metrics(last: TextDelta, watch: Stopwatch, first_byte_ms: int) -> dict[str, int]:
    return {
        "inputTokenCount": last.prompt,
        "outputTokenCount": last.generated,
        "invocationLatency": watch.elapsed_ms(),
        "firstByteLatency": first_byte_ms,
    }


def _frame(chunk: Mapping[str, Any]) -> bytes:
    return _CHUNK.encode(_encode({"bytes": base64.b64encode(_encode(chunk)).decode()}))
