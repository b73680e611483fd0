"""Many clients at once, some of which leave."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from botocore.eventstream import EventStreamBuffer

from .doubles import Script
from .server import Server, eventually

STREAM = "/model/meta.llama3-8b-instruct-v1:0/converse-stream"
HELLO = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
WORDS = 50


async def read_all(http: httpx.AsyncClient) -> None:
    response = await http.post(STREAM, json=HELLO)
    buffer = EventStreamBuffer()
    buffer.add_data(response.content)
    events = [json.loads(event.payload) for event in buffer]
    assert sum("delta" in event for event in events) == WORDS
    assert events[-1]["usage"]["outputTokens"] == 5 * WORDS + 1


async def leave_early(server: Server, chunks: int) -> None:
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
        http.stream("POST", STREAM, json=HELLO) as response,
    ):
        async for _ in response.aiter_raw():
            chunks -= 1
            if chunks <= 0:
                break


@pytest.mark.parametrize("h2c", [False, True], ids=["http/1.1", "h2c"])
def test_every_stream_is_whole(server: Server, h2c: bool) -> None:
    server.engine.script = Script(pieces=(b"word ",) * WORDS)

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, http1=not h2c, http2=h2c, timeout=30) as http:
            await asyncio.gather(
                *(read_all(http) for _ in range(64)),
                *(leave_early(server, chunks) for chunks in range(16)),
            )

    asyncio.run(run())
    eventually(lambda: server.engine.open == 0)
