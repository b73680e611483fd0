"""What travels between the API process and an engine process: msgspec structs in MessagePack."""

from __future__ import annotations

import msgspec

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
    """Warm-up is done; steps run from now on. description: what is served, in a line, for the log."""

    max_model_len: int
    description: str


class Started(msgspec.Struct, tag=True, array_like=True):
    """These requests are in the step about to be submitted, or their grammar is about to be built: a crash
    from now on may be theirs."""

    request_ids: list[str]


class Stepped(msgspec.Struct, tag=True, array_like=True):
    """One engine step's news."""

    deltas: list[GenerationDelta]
    stats: EngineStats


class Failed(msgspec.Struct, tag=True, array_like=True):
    """The engine is about to exit, and this is why."""

    reason: str


Event = Progress | Ready | Started | Stepped | Failed

encode = msgspec.msgpack.Encoder().encode
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_event = msgspec.msgpack.Decoder(Event).decode
