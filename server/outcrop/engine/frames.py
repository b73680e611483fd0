"""What travels between the API process and an engine process: msgspec structs in MessagePack, one event or
a list of commands to a frame."""

from __future__ import annotations

from typing import Literal

import msgspec

from outcrop.engine.abilities import Abilities
from outcrop.engine.messages import GenerationDelta, GenerationRequest
from outcrop.engine.stats import EngineStats

# -- to the engine -------------------------------------------------------------------------------


class Add(msgspec.Struct, tag=True, array_like=True):
    request: GenerationRequest


class Abort(msgspec.Struct, tag=True, array_like=True):
    request_id: str


class Shutdown(msgspec.Struct, tag=True, array_like=True):
    """End the process; whatever still runs is dropped (the API drains first)."""


Command = Add | Abort | Shutdown

# -- from the engine -----------------------------------------------------------------------------


class Progress(msgspec.Struct, tag=True, array_like=True):
    """Start-up, as it goes. fraction: 0 to 1 of this stage."""

    stage: str
    fraction: float


class Ready(msgspec.Struct, tag=True, array_like=True):
    """Warm-up is done; steps run from now on. description: what is served, in a line, for the log.
    abilities: what requests may ask for. num_blocks: of KV memory, 0 where the engine does not tell."""

    max_model_len: int
    description: str
    abilities: Abilities
    num_blocks: int = 0


class Building(msgspec.Struct, tag=True, array_like=True):
    """This request's grammar is about to be built: a crash from now on may be its fault."""

    request_id: str


class Started(msgspec.Struct, tag=True, array_like=True):
    """Columns: requests in the step about to be submitted, the slot by which Stepped calls each from now
    on, and how many tokens of its prompt come from the prefix cache. A crash from now on may be their
    fault. held: as in GenerationDelta, where it is known. ago: for how many seconds they have been in steps
    already, where that is told late."""

    request_ids: list[str]
    slots: list[int]
    cached: list[int]
    held: list[int] = []
    ago: list[float] = []


class Stepped(msgspec.Struct, tag=True, array_like=True):
    """One engine step's news. Columns: slots of requests that go on, and the new token of each; a slot that
    occurs several times has several, in order. others: deltas of requests that do not go on, or whose tokens
    come with log probabilities."""

    slots: list[int]
    tokens: list[int]
    others: list[GenerationDelta]
    stats: EngineStats


Drain = Literal["never", "repeated", "now"]
"""Whether an engine that failed stays down, since its hardware is not to be trusted: never, when engines go
on failing in this way, or at once."""


class Failed(msgspec.Struct, tag=True, array_like=True):
    """The engine is about to exit, and this is why. code: what the device calls it, 0 for nothing of the
    device's."""

    reason: str
    code: int = 0
    drain: Drain = "never"


Event = Progress | Ready | Building | Started | Stepped | Failed

encode = msgspec.msgpack.Encoder().encode
decode_commands = msgspec.msgpack.Decoder(list[Command]).decode
decode_event = msgspec.msgpack.Decoder(Event).decode
