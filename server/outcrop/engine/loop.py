"""The engine's endless loop: commands in, steps, events out. The transport is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from outcrop.engine.core import EngineCore
from outcrop.engine.edits import Matcher
from outcrop.engine.frames import Abort, Add, Building, Command, Event, Shutdown, Started, Stepped
from outcrop.engine.messages import GenerationDelta
from outcrop.engine.request import Request


@dataclass(frozen=True, slots=True)
class Built:
    """A grammar that `build` was asked for; matcher None if it cannot be built."""

    request_id: str
    grammar: str
    matcher: Matcher | None


Receive = Callable[[bool], Iterable[Command | Built]]
"""The commands that have arrived; waits for at least one if told to."""

Build = Callable[[str, str], None]
"""Start to build the grammar of a request (its id, the grammar); a Built is received when that is done."""


def run_engine(core: EngineCore, receive: Receive, send: Callable[[Event], None], build: Build) -> None:
    """Serve until a Shutdown command. Sends one Stepped event per step that has news.

    An abort takes effect before the next step is planned, so an abandoned request is in at most the
    steps already submitted.
    """

    def tell_started(requests: list[Request]) -> None:
        columns = [(request.id, request.slot, request.cached, request.held) for request in requests]
        send(Started(*map(list, zip(*columns, strict=True))))

    def tell(final: GenerationDelta | None) -> None:
        if final is not None:
            send(Stepped([], [], [final], core.stats()))

    core.on_prefill = tell_started
    while True:
        idle = core.idle
        if idle:
            send(Stepped([], [], [], core.stats()))
        for command in receive(idle):
            if isinstance(command, Add):
                refused = core.add(command.request)
                tell(refused)
                if refused is None and (grammar := command.request.sampling.grammar):
                    # Should the builder take the process with it, this request is among the suspects.
                    send(Building(command.request.request_id))
                    build(command.request.request_id, grammar)
            elif isinstance(command, Built):
                tell(core.grammar_built(command.request_id, command.grammar, command.matcher))
            elif isinstance(command, Abort):
                core.abort(command.request_id)
            elif isinstance(command, Shutdown):
                return
        news = core.step()
        if news:
            send(Stepped(news.slots.tolist(), news.tokens.tolist(), news.others, core.stats()))
