"""The API side of one engine's requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from time import perf_counter

import msgspec

from outcrop.engine.client import ModelFailure
from outcrop.engine.frames import Abort, Add, Command
from outcrop.engine.lobby import Lobby
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest
from outcrop.engine.stream import Stream, follow

MAX_CRASHES = 2
"""A request in this many engine crashes, with no token in between, is taken for their cause."""

_FAILURES = {
    FinishReason.ERROR: "The model produced values that are not numbers, or its step could not be run.",
    FinishReason.GRAMMAR: "The model could not be held to the grammar of the answer.",
}


class Dispatcher:
    """Routes an engine's news to the streams waiting for it; one that is slow to read gets what came
    meanwhile in one delta. Streams of an engine that is lost go back to the lobby."""

    def __init__(
        self,
        send: Callable[[Command], None],
        clock: Callable[[], float] = perf_counter,
        *,
        lobby: Lobby | None = None,
        up: bool = True,
    ) -> None:
        """clock: seconds since whenever. lobby: shared by the engines of a model; None for one alone. up:
        whether the engine is there from the beginning."""
        self._send = send
        self._clock = clock
        self.lobby = lobby or Lobby(self.take)
        self._up = up
        self._streams: dict[str, Stream] = {}
        self._by_slot: dict[int, Stream] = {}

    @property
    def busy(self) -> bool:
        """Whether the engine has any request."""
        return bool(self._streams)

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        """See EngineClient.generate."""
        return follow(Stream(request, self._clock()), self.lobby.enter)

    def take(self, stream: Stream) -> bool:
        """Give a stream to the engine, if it is up."""
        if self._up:
            self._streams[stream.request.request_id] = stream
            stream.home = self
            resumed = stream.request
            if stream.tokens:
                resumed = msgspec.structs.replace(resumed, resumed=list(stream.tokens))
            self._send(Add(resumed))
        return self._up

    def building(self, request_id: str) -> None:
        """The engine begins with this request's grammar."""
        if (stream := self._streams.get(request_id)) is not None:
            stream.started = True

    def started(
        self,
        request_ids: list[str],
        slots: list[int],
        cached: list[int],
        held: Sequence[int] = (),
        ago: Sequence[float] = (),
    ) -> None:
        """Columns of a Started event."""
        now = self._clock()
        none = [0] * len(slots)
        columns = zip(request_ids, slots, cached, held or none, ago or none, strict=True)
        for request_id, slot, count, known, late in columns:
            stream = self._streams.get(request_id)
            if stream is None:
                self._by_slot.pop(slot, None)  # aborted meanwhile
            else:
                stream.started, stream.slot, stream.cached, stream.held = True, slot, count, known
                if stream.queued is None:
                    stream.queued = max(0.0, now - late - stream.submitted)
                self._by_slot[slot] = stream
                self.lobby.started(stream)

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

    def _advanced(self, stream: Stream) -> None:
        """It has a token more."""
        stream.crashes = 0
        stream.wake()
        if stream is self.lobby.on_trial:
            self.lobby.absolved()

    def crashed(self) -> None:
        """The engine died. Requests that were in two such crashes without progress end here; the others go
        back to the lobby."""
        self._up = False
        for stream in list(self._streams.values()):
            stream.crashes += stream.started
            if stream.crashes >= MAX_CRASHES:
                self._end(
                    stream,
                    ModelFailure(
                        "The model failed twice while processing this request; it is not tried again."
                    ),
                )
        self.release()

    def release(self) -> None:
        """The engine is gone, and nobody's request is to blame: all go back to the lobby."""
        self._up = False
        streams = list(self._streams.values())
        self._streams.clear()
        self._by_slot.clear()
        for stream in streams:
            self.lobby.keep(stream)

    def restarted(self) -> None:
        """The engine is up again, or for the first time. (The lobby's `resume` is the caller's.)"""
        self._up = True

    def fail_all(self, reason: str) -> None:
        """The engine is gone for good, and there is no other."""
        self.release()
        self.lobby.fail_all(reason)

    def abandon(self, stream: Stream) -> None:
        self._send(Abort(stream.request.request_id))
        self._end(stream, None)

    def _end(self, stream: Stream, end: GenerationDelta | Exception | None) -> None:
        del self._streams[stream.request.request_id]
        if self._by_slot.get(stream.slot) is stream:
            del self._by_slot[stream.slot]
        self.lobby.end(stream, end)
