"""The API side of an engine's requests: one stream each, surviving an engine restart."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from time import perf_counter

import msgspec

from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.engine.frames import Abort, Add, Command
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest, TokenLogprobs

MAX_CRASHES = 2
"""A request in this many engine crashes, with no token in between, is taken for their cause."""

_FAILURES = {
    FinishReason.ERROR: "The model produced values that are not numbers, or its step could not be run.",
    FinishReason.GRAMMAR: "The model could not be held to the grammar of the answer.",
}


@dataclass(slots=True, eq=False)
class _Stream:
    """One request as its client sees it. tokens: those the engine has delivered; the client has the first
    `taken` of them. logprobs: of those that it has not had, where it asked for them. cached, queued: as in
    GenerationDelta, once it was in a step. end: its last delta, if it has come, or why there is none. slot:
    its name in the engine's steps, once it has one. started: in a step, or its grammar begun, since the
    engine last started. crashes: engine crashes it was part of since its last token. reader: waits for
    news."""

    request: GenerationRequest
    submitted: float
    tokens: list[int] = field(default_factory=list)
    taken: int = 0
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    cached: int = 0
    queued: float | None = None
    end: GenerationDelta | Exception | None = None
    slot: int = -1
    started: bool = False
    crashes: int = 0
    reader: asyncio.Future[None] | None = None

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
                request_id, tokens, self.taken, self.cached, queued=queued, logprobs=logprobs
            )
        if self.end is not None:
            raise self.end
        return None


class Dispatcher:
    """Routes an engine's news to the generators waiting for it; one that is slow to read gets what came
    meanwhile in one delta.

    After an engine restart every open request is submitted again as prompt + tokens already delivered;
    since draws depend on seed and position only, its stream goes on as if nothing had happened. Those
    that were in a step when it died go one after another, each when the one before it has a token: if
    one of them is the cause, it is alone without progress at the next crash, and takes no other with it.
    """

    def __init__(self, send: Callable[[Command], None], clock: Callable[[], float] = perf_counter) -> None:
        """clock: seconds since whenever."""
        self._send = send
        self._clock = clock
        self._streams: dict[str, _Stream] = {}
        self._by_slot: dict[int, _Stream] = {}
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
        # What it resumes was delivered by another engine: it is its client's already, and goes with it.
        had = request.resumed
        stream = _Stream(request, self._clock(), tokens=list(had), taken=len(had))
        self._streams[request.request_id] = stream
        if submit():
            self._send(Add(request))
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
            if stream.end is None:
                self._send(Abort(request.request_id))
                self._close(stream)

    def building(self, request_id: str) -> None:
        """The engine begins with this request's grammar."""
        if (stream := self._streams.get(request_id)) is not None:
            stream.started = True

    def started(self, request_ids: list[str], slots: list[int], cached: list[int]) -> None:
        """Columns of a Started event."""
        now = self._clock()
        for request_id, slot, count in zip(request_ids, slots, cached, strict=True):
            stream = self._streams.get(request_id)
            if stream is None:
                self._by_slot.pop(slot, None)  # aborted meanwhile
            else:
                stream.started, stream.slot, stream.cached = True, slot, count
                if stream.queued is None:
                    stream.queued = now - stream.submitted
                self._by_slot[slot] = stream

    def deliver(self, slots: list[int], tokens: list[int], others: list[GenerationDelta]) -> None:
        """What a Stepped event brings."""
        streams = self._by_slot
        for slot, token in zip(slots, tokens, strict=True):
            if (stream := streams.get(slot)) is None:
                continue  # aborted meanwhile
            stream.tokens.append(token)
            self._advanced(stream)
        for delta in others:
            if (named := self._streams.get(delta.request_id)) is None:
                continue
            named.tokens.extend(delta.tokens)
            named.logprobs.extend(delta.logprobs)
            if delta.finish is None:
                self._advanced(named)
            else:
                failure = _FAILURES.get(delta.finish)
                self._end(named, delta if failure is None else ModelFailure(failure))

    def _advanced(self, stream: _Stream) -> None:
        """It has a token more."""
        stream.crashes = 0
        stream.wake()
        if stream is self._on_trial:
            self._try_next_suspect()

    def crashed(self) -> None:
        """The engine died. Requests that were in two such crashes without progress end here."""
        self._suspects.clear()
        self._on_trial = None
        self._by_slot.clear()
        for stream in list(self._streams.values()):
            stream.crashes += stream.started
            stream.started = False
            if stream.crashes >= MAX_CRASHES:
                self._end(
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
            self._end(stream, EngineUnavailable(reason))

    def _try_next_suspect(self) -> None:
        self._on_trial = self._suspects.popleft() if self._suspects else None
        if self._on_trial is not None:
            self._submit(self._on_trial)

    def _submit(self, stream: _Stream) -> None:
        self._send(Add(msgspec.structs.replace(stream.request, resumed=list(stream.tokens))))

    def _end(self, stream: _Stream, end: GenerationDelta | Exception) -> None:
        stream.end = end
        stream.wake()
        self._close(stream)

    def _close(self, stream: _Stream) -> None:
        del self._streams[stream.request.request_id]
        if self._by_slot.get(stream.slot) is stream:
            del self._by_slot[stream.slot]
        if stream in self._suspects:
            self._suspects.remove(stream)
        if stream is self._on_trial:
            self._try_next_suspect()
