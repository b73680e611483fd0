"""The API side of an engine's requests: one stream each, surviving an engine restart."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.engine.frames import Abort, Add, Command
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest

MAX_CRASHES = 2
"""A request in this many engine crashes, with no token in between, is taken for their cause."""

_FAILURES = {
    FinishReason.ERROR: "The model produced values that are not numbers.",
    FinishReason.GRAMMAR: "The model could not be held to the grammar of the answer.",
}


@dataclass(slots=True, eq=False)
class _Stream:
    """One request as its client sees it. tokens: those delivered. started: in a step, or its grammar
    begun, since the engine last started. crashes: engine crashes it was part of since its last token."""

    request: GenerationRequest
    tokens: list[int] = field(default_factory=list)
    news: asyncio.Queue[GenerationDelta | Exception] = field(default_factory=asyncio.Queue)
    started: bool = False
    crashes: int = 0


class Dispatcher:
    """Routes an engine's deltas to the generators waiting for them.

    After an engine restart every open request is submitted again as prompt + tokens already delivered;
    since draws depend on seed and position only, its stream goes on as if nothing had happened. Those
    that were in a step when it died go one after another, each when the one before it has a token: if
    one of them is the cause, it is alone without progress at the next crash, and takes no other with it.
    """

    def __init__(self, send: Callable[[Command], None]) -> None:
        self._send = send
        self._streams: dict[str, _Stream] = {}
        self._suspects: deque[_Stream] = deque()
        self._on_trial: _Stream | None = None

    @property
    def busy(self) -> bool:
        """Whether any request is open."""
        return bool(self._streams)

    async def generate(
        self, request: GenerationRequest, *, submit: Callable[[], bool]
    ) -> AsyncGenerator[GenerationDelta, None]:
        """See EngineClient.generate. submit: whether the engine is up; if not, `resubmit` sends it."""
        if request.request_id in self._streams:
            raise ValueError(f"request id {request.request_id} is in use")
        stream = self._streams[request.request_id] = _Stream(request)
        if submit():
            self._send(Add(request))
        try:
            while True:
                news = await stream.news.get()
                if isinstance(news, Exception):
                    raise news
                yield news
                if news.finish is not None:
                    return
        finally:
            if request.request_id in self._streams:
                self._send(Abort(request.request_id))
                self._end(stream)

    def started(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            if (stream := self._streams.get(request_id)) is not None:
                stream.started = True

    def deliver(self, deltas: list[GenerationDelta]) -> None:
        for delta in deltas:
            stream = self._streams.get(delta.request_id)
            if stream is None:
                continue  # aborted meanwhile
            if delta.finish in _FAILURES:
                self._fail(stream, ModelFailure(_FAILURES[delta.finish]))
                continue
            stream.tokens.extend(delta.tokens)
            stream.crashes = 0
            stream.news.put_nowait(delta)
            if delta.finish is not None:
                self._end(stream)
            elif stream is self._on_trial:
                self._try_next_suspect()

    def crashed(self) -> None:
        """The engine died. Requests that were in two such crashes without progress end here."""
        self._suspects.clear()
        self._on_trial = None
        for stream in list(self._streams.values()):
            stream.crashes += stream.started
            stream.started = False
            if stream.crashes >= MAX_CRASHES:
                self._fail(
                    stream,
                    ModelFailure(
                        "The model failed twice while processing this request; it is not tried again."
                    ),
                )

    def resubmit(self) -> None:
        """The engine is up again."""
        self._suspects = deque(stream for stream in self._streams.values() if stream.crashes)
        for stream in self._streams.values():
            if not stream.crashes:
                self._submit(stream)
        self._try_next_suspect()

    def fail_all(self, reason: str) -> None:
        for stream in list(self._streams.values()):
            self._fail(stream, EngineUnavailable(reason))

    def _try_next_suspect(self) -> None:
        self._on_trial = self._suspects.popleft() if self._suspects else None
        if self._on_trial is not None:
            self._submit(self._on_trial)

    def _submit(self, stream: _Stream) -> None:
        self._send(Add(msgspec.structs.replace(stream.request, resumed=list(stream.tokens))))

    def _fail(self, stream: _Stream, error: Exception) -> None:
        stream.news.put_nowait(error)
        self._end(stream)

    def _end(self, stream: _Stream) -> None:
        del self._streams[stream.request.request_id]
        if stream in self._suspects:
            self._suspects.remove(stream)
        if stream is self._on_trial:
            self._try_next_suspect()
