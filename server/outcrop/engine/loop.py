"""The engine's endless loop: commands in, steps, events out. The transport is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from outcrop.engine.core import EngineCore
from outcrop.engine.frames import Abort, Add, Command, Event, Shutdown, Started, Stepped

Receive = Callable[[bool], Iterable[Command]]
"""The commands that have arrived; waits for at least one if told to."""


def run_engine(core: EngineCore, receive: Receive, send: Callable[[Event], None]) -> None:
    """Serve until a Shutdown command. Sends one Stepped event per step that has news.

    An abort takes effect before the next step is planned, so an abandoned request is in at most the
    steps already submitted.
    """
    core.on_prefill = lambda request_ids: send(Started(request_ids))
    while True:
        idle = core.idle
        if idle:
            send(Stepped([], core.stats()))
        for command in receive(idle):
            if isinstance(command, Add):
                refused = core.add(command.request)
                if refused is not None:
                    send(Stepped([refused], core.stats()))
            elif isinstance(command, Abort):
                core.abort(command.request_id)
            elif isinstance(command, Shutdown):
                return
        deltas = core.step()
        if deltas:
            send(Stepped(deltas, core.stats()))
