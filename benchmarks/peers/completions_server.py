"""The least of an HTTP server: `POST /v1/completions` before a library that has none.

Runs in the peer's environment, so it imports the standard library alone. Answers are streamed as the other
servers stream them, one event a token; the text in them is empty, so the library is spared the
detokenising that the servers do.
"""

from __future__ import annotations

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

Emit = Callable[[int], None]
"""Told how many further tokens there are; from the library's thread."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call. `emit` is to be called until it has heard of max_tokens tokens."""

    tokens: list[int]
    max_tokens: int
    emit: Emit


class Generator(ABC):
    """A library with a model loaded. `run` owns a thread."""

    @abstractmethod
    def run(self, take: Callable[[bool], list[Prompt]]) -> None:
        """Generate for ever. take(wait): the calls that have come since it was last called; with `wait`,
        not before there is one."""


class _Inbox:
    def __init__(self) -> None:
        self._prompts: list[Prompt] = []
        self._changed = threading.Condition()

    def put(self, prompt: Prompt) -> None:
        with self._changed:
            self._prompts.append(prompt)
            self._changed.notify()

    def take(self, wait: bool) -> list[Prompt]:
        with self._changed:
            while wait and not self._prompts:
                self._changed.wait()
            taken, self._prompts = self._prompts, []
            return taken


def serve(generator: Generator, port: int) -> None:
    """Answer on 127.0.0.1 until the process is ended."""
    asyncio.run(listen(generator, port))


async def listen(generator: Generator, port: int) -> None:
    """The same, in a running loop."""
    inbox = _Inbox()
    threading.Thread(target=generator.run, args=(inbox.take,), daemon=True).start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if head.startswith("post /v1/completions "):
                length = int(head.partition("content-length:")[2].split("\r\n")[0])
                await _complete(json.loads(await reader.readexactly(length)), writer, inbox)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await server.serve_forever()


async def _complete(body: dict[str, object], writer: asyncio.StreamWriter, inbox: _Inbox) -> None:
    loop, counts = asyncio.get_running_loop(), asyncio.Queue[int]()
    tokens, wanted = body["prompt"], body["max_tokens"]
    assert isinstance(tokens, list)
    assert isinstance(wanted, int)

    def emit(count: int) -> None:
        loop.call_soon_threadsafe(counts.put_nowait, count)

    inbox.put(Prompt(tokens, wanted, emit))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    event = json.dumps({"object": "text_completion", "choices": [{"index": 0, "text": ""}]}).encode()
    done = 0
    while done < wanted:
        count = await counts.get()
        done += count
        writer.write(b"data: " + event + b"\n\n")
        await writer.drain()
    usage = {"prompt_tokens": len(tokens), "completion_tokens": done}
    writer.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n")
    await writer.drain()
