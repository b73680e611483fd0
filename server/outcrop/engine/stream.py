"""One request as its client sees it, wherever it is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from outcrop.engine.messages import GenerationDelta, GenerationRequest, TokenLogprobs
from outcrop.engine.router import Ticket


class Home(Protocol):
    """Where an open stream is: with an engine, or waiting for one."""

    def abandon(self, stream: Stream) -> None:
        """Its client went away."""


@dataclass(slots=True, eq=False)
class Stream:
    """tokens: those that engines have delivered, of which the client has the first `taken`; what its request
    resumes came from elsewhere, and the client has it. logprobs: of those that it has not had, where it asked
    for them. cached, held, queued: as in GenerationDelta, once it was in a step. end: its last delta, if it
    has come, or why there is none. slot: its name in the engine's steps, once it has one. started: in a step,
    or its grammar begun, since it was given to its engine. crashes: engine crashes it was part of since its
    last token. reader: waits for news. ticket: of the replica that it was sent to; version: of the model that
    this replica serves."""

    request: GenerationRequest
    submitted: float
    tokens: list[int] = field(init=False)
    taken: int = field(init=False)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    cached: int = 0
    held: int = 0
    queued: float | None = None
    end: GenerationDelta | Exception | None = None
    slot: int = -1
    started: bool = False
    crashes: int = 0
    reader: asyncio.Future[None] | None = None
    home: Home | None = None
    ticket: Ticket | None = None
    version: int = -1

    def __post_init__(self) -> None:
        self.tokens = list(self.request.resumed)
        self.taken = len(self.tokens)

    def wake(self) -> None:
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)

    def news(self) -> GenerationDelta | None:
        """All that its client has not had yet, or None. Raises what ended it."""
        tokens = self.tokens[self.taken :]
        self.taken += len(tokens)
        queued, logprobs = self.queued or 0.0, self.logprobs
        if logprobs:
            self.logprobs = []
        if isinstance(self.end, GenerationDelta):
            return msgspec.structs.replace(self.end, tokens=tokens, queued=queued, logprobs=logprobs)
        if tokens:
            request_id = self.request.request_id
            return GenerationDelta(
                request_id,
                tokens,
                self.taken,
                self.cached,
                queued=queued,
                logprobs=logprobs,
                held=self.held,
            )
        if self.end is not None:
            raise self.end
        return None


async def follow(stream: Stream, enter: Callable[[Stream], None]) -> AsyncGenerator[GenerationDelta, None]:
    """The deltas of a stream, which `enter` brings on its way; see EngineClient.generate."""
    enter(stream)
    loop = asyncio.get_running_loop()
    try:
        while True:
            if (news := stream.news()) is not None:
                yield news
                if news.finish is not None:
                    return
            else:
                stream.reader = loop.create_future()
                await stream.reader
    finally:
        if stream.end is None and stream.home is not None:
            stream.home.abandon(stream)
