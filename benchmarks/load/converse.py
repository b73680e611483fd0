"""A closed-loop load of ConverseStream calls over HTTP, with times of every chunk."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

import httpx
from botocore.eventstream import EventStreamBuffer


@dataclass
class Call:
    """begun: seconds on the monotonic clock; chunks: when each piece of text arrived."""

    begun: float
    chunks: list[float] = field(default_factory=list)
    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


async def converse_stream(client: httpx.AsyncClient, model: str, prompt: str, max_tokens: int) -> Call:
    """One greedy call. Raises on any answer but 200 and on an exception event."""
    call = Call(time.perf_counter())
    body = {
        "messages": [{"role": "user", "content": [{"text": prompt}]}],
        "inferenceConfig": {"maxTokens": max_tokens, "temperature": 0},
    }
    buffer = EventStreamBuffer()
    async with client.stream("POST", f"/model/{model}/converse-stream", json=body) as response:
        response.raise_for_status()
        async for data in response.aiter_raw():
            buffer.add_data(data)
            for event in buffer:
                headers = dict(event.headers)
                if headers[":message-type"] != "event":
                    raise RuntimeError(f"{headers}: {event.payload!r}")
                if headers[":event-type"] == "contentBlockDelta":
                    call.chunks.append(time.perf_counter())
                    call.text += json.loads(event.payload)["delta"]["text"]
                elif headers[":event-type"] == "metadata":
                    usage = json.loads(event.payload)["usage"]
                    call.input_tokens, call.output_tokens = usage["inputTokens"], usage["outputTokens"]
    return call


async def run_load(url: str, model: str, prompts: list[str], max_tokens: int, concurrency: int) -> list[Call]:
    """All prompts, `concurrency` at a time."""
    limits = httpx.Limits(max_connections=concurrency)
    gate = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def one(prompt: str) -> Call:
            async with gate:
                return await converse_stream(client, model, prompt, max_tokens)

        return list(await asyncio.gather(*map(one, prompts)))
