"""The contract of an engine that schedules its requests itself, and the process that runs one.

Outcrop's own backends run steps that Outcrop's scheduler plans (`backends/base.py`). Such an engine is given
requests and streams their tokens; the frames between its process and the API are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

import zmq
import zmq.asyncio

from outcrop.engine.frames import (
    Abort,
    Add,
    Building,
    Event,
    Failed,
    Progress,
    Ready,
    Shutdown,
    Started,
    Stepped,
    decode_commands,
    encode,
)
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest, TokenLogprobs
from outcrop.engine.stats import EngineStats

_PERIOD = 1.0
"""Seconds between looks at an engine's health and figures."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of a request at once, in the terms of GenerationDelta. tokens: without the one that ends a
    turn; generated: with it, and with those of `GenerationRequest.resumed`. running: on the first, seconds
    since the request was first in a step, or the best that is known of that."""

    tokens: list[int]
    generated: int
    cached: int = 0
    finish: FinishReason | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    running: float = 0.0


class EngineLost(Exception):
    """The engine is gone, and its process has to end; the message says why."""


class StreamingEngine(Protocol):
    """Lives on one event loop."""

    async def start(self, progress: Callable[[str, float], None]) -> Ready:
        """Returns when requests are served. Raises ValueError and OSError with a message meant for the
        operator."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """The pieces of one request, the last with its `finish` set. Closing the generator aborts it. Raises
        EngineLost."""

    async def look(self) -> EngineStats:
        """Its figures. Raises EngineLost."""

    async def close(self) -> None:
        """Stop it. Idempotent."""


class StreamingProcess:
    """Runs a StreamingEngine on behalf of the API process at the other end of a socket."""

    def __init__(self, engine: StreamingEngine, address: str) -> None:
        self._engine = engine
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(address)
        self._requests: dict[str, asyncio.Task[None]] = {}
        self._slots = itertools.count()
        self._news = Stepped([], [], [], EngineStats())
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """Serve until told to shut down. The exit status: 0 after a Shutdown command, else 1."""
        try:
            self._send(await self._engine.start(lambda stage, done: self._send(Progress(stage, done))))
            await self._serve()
            return 0
        except (ValueError, OSError, EngineLost) as error:
            self._send(Failed(str(error)))
            return 1
        except Exception as error:
            self._send(Failed(f"{type(error).__name__}: {error}"))
            sys.excepthook(*sys.exc_info())
            return 1
        finally:
            for task in self._requests.values():
                task.cancel()
            await asyncio.gather(*self._requests.values(), return_exceptions=True)
            await self._engine.close()
            self._socket.close()
            self._context.term()

    async def _serve(self) -> None:
        """Raises what a request or a look at the engine raised."""
        commands, looks = asyncio.create_task(self._obey()), asyncio.create_task(self._watch())
        try:
            done, _ = await asyncio.wait({commands, looks, self._lost}, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for task in (commands, looks):
                task.cancel()
            await asyncio.gather(commands, looks, return_exceptions=True)

    async def _obey(self) -> None:
        while True:
            for command in decode_commands(await self._socket.recv()):
                if isinstance(command, Shutdown):
                    return
                if isinstance(command, Add):
                    request = command.request
                    self._requests[request.request_id] = asyncio.create_task(self._follow(request))
                elif isinstance(command, Abort) and (task := self._requests.get(command.request_id)):
                    task.cancel()

    async def _watch(self) -> None:
        told = EngineStats()
        while True:
            stats = await self._engine.look()
            if stats != told:
                self._news.stats = told = stats
                self._flush(even_if_empty=True)
            await asyncio.sleep(_PERIOD)

    async def _follow(self, request: GenerationRequest) -> None:
        # It may be in the engine's next step, of which nobody tells: so it is a suspect from now on.
        self._send(Building(request.request_id))
        slot = None
        try:
            async with aclosing(self._engine.generate(request)) as pieces:
                async for piece in pieces:
                    if slot is None:
                        slot = next(self._slots)
                        self._send(Started([request.request_id], [slot], [piece.cached], ago=[piece.running]))
                    self._tell(request, slot, piece)
        except Exception as error:
            if not self._lost.done():
                self._lost.set_exception(error)
        finally:
            # One that was aborted may be asked for again under its name only after this.
            del self._requests[request.request_id]

    def _tell(self, request: GenerationRequest, slot: int, piece: Piece) -> None:
        """All that comes before the loop comes round goes in one frame."""
        if not (self._news.slots or self._news.others):
            asyncio.get_running_loop().call_soon(self._flush)
        if piece.finish is None and not piece.logprobs:
            self._news.slots += [slot] * len(piece.tokens)
            self._news.tokens += piece.tokens
        else:
            self._news.others.append(
                GenerationDelta(
                    request.request_id,
                    piece.tokens,
                    piece.generated,
                    piece.cached,
                    piece.finish,
                    logprobs=piece.logprobs,
                )
            )

    def _flush(self, *, even_if_empty: bool = False) -> None:
        news = self._news
        if news.slots or news.others or even_if_empty:
            self._news = Stepped([], [], [], news.stats)
            self._send(news)

    def _send(self, event: Event) -> None:
        with contextlib.suppress(zmq.ZMQError):  # closed: the process is ending
            # There is no high-water mark, so that this is done when it returns.
            self._socket.send(encode(event), zmq.NOBLOCK)


async def run_streaming(engine: StreamingEngine, address: str) -> int:
    """The exit status of the process."""
    return await StreamingProcess(engine, address).run()
