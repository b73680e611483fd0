"""The open requests of a model, and which of them wait for an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from outcrop.engine.client import EngineUnavailable
from outcrop.engine.messages import GenerationDelta
from outcrop.engine.stream import Stream


class Watcher(Protocol):
    """Is told of every stream of a lobby."""

    def stream_started(self, stream: Stream) -> None:
        """It is in a step of its engine; `cached` is known."""

    def stream_ended(self, stream: Stream) -> None:
        """`end` says how, or is None where its client went away."""


class Lobby:
    """Every open stream enters here and is told of here when it ends; those without an engine wait here.

    After an engine was lost its streams come back and are placed again, as prompt + tokens already delivered;
    since draws depend on seed and position only, a stream goes on as if nothing had happened. Those that were
    in a step when it died are suspects: they go one after another, each when the one before it has a token.
    If one of them is the cause, it is alone without progress at the next crash, and takes no other with it.
    """

    def __init__(self, place: Callable[[Stream], bool], watcher: Watcher | None = None) -> None:
        """place: gives a stream to an engine that is up; False if there is none for it now."""
        self._place = place
        self._watcher = watcher
        self._open: dict[str, Stream] = {}
        self._waiting: dict[Stream, None] = {}
        self._suspects: dict[Stream, None] = {}
        self.on_trial: Stream | None = None

    def __iter__(self) -> Iterator[Stream]:
        """The streams that wait."""
        yield from self._waiting
        yield from self._suspects

    def enter(self, stream: Stream) -> None:
        """A new stream. Raises ValueError where its id is in use."""
        request_id = stream.request.request_id
        if request_id in self._open:
            raise ValueError(f"request id {request_id} is in use")
        self._open[request_id] = stream
        if not self._place(stream):
            self.keep(stream)

    def keep(self, stream: Stream) -> None:
        """A stream has no engine: it waits for the next `resume`."""
        stream.home = self
        stream.started, stream.slot = False, -1
        if stream is self.on_trial:
            self.on_trial = None
        (self._suspects if stream.crashes else self._waiting)[stream] = None

    def resume(self) -> None:
        """Place what can be placed: an engine is up, or was lost and others are there."""
        for stream in list(self._waiting):
            if self._place(stream):
                del self._waiting[stream]
        self._try_suspects()

    def started(self, stream: Stream) -> None:
        if self._watcher is not None:
            self._watcher.stream_started(stream)

    def absolved(self) -> None:
        """The suspect on trial has a token."""
        self.on_trial = None
        self._try_suspects()

    def end(self, stream: Stream, end: GenerationDelta | Exception | None) -> None:
        """A stream has ended, wherever it is; None where its client went away."""
        del self._open[stream.request.request_id]
        self._waiting.pop(stream, None)
        self._suspects.pop(stream, None)
        stream.end, stream.home = end, None
        stream.wake()
        if self._watcher is not None:
            self._watcher.stream_ended(stream)
        if stream is self.on_trial:
            self.absolved()

    def abandon(self, stream: Stream) -> None:
        self.end(stream, None)

    def fail_all(self, reason: str) -> None:
        """Of the streams that wait."""
        for stream in list(self):
            self.end(stream, EngineUnavailable(reason))

    def _try_suspects(self) -> None:
        if self.on_trial is None:
            for stream in self._suspects:
                if self._place(stream):
                    self.on_trial = stream
                    del self._suspects[stream]
                    return
