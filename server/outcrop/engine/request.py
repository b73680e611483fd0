"""A request while the engine works on it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.engine.edits import LogitEdits
from outcrop.engine.messages import BACKGROUND, FinishReason, GenerationRequest, SamplingParams


class Status(enum.Enum):
    BUILDING = enum.auto()  # its grammar is being built elsewhere; holds nothing
    WAITING = enum.auto()  # holds nothing
    RUNNING = enum.auto()  # holds blocks and a slot
    DRAINING = enum.auto()  # preempted or finished; holds its blocks until its last submitted step is in


@dataclass(slots=True, eq=False)
class Request:
    """What is looked at when a request's state changes; what every step looks at is in its slot's columns
    (`Slots`), while it has a slot.

    tokens: prompt and output known to the host, up to date while it has no slot. limit: tokens at which it
    ends. computed: of a running request whose prompt is not yet computed, the positions whose KV a
    submitted step writes. edits: of the logits of its next token, up to date with what the host knows.
    """

    id: str
    prompt_len: int
    tokens: Sequence[int]
    limit: int
    sampling: SamplingParams
    priority: int
    salt: str
    order: tuple[int, int]  # sorts first what runs first: higher priority, then earlier arrival
    status: Status = Status.WAITING
    computed: int = 0
    edits: LogitEdits | None = None
    finish: FinishReason | None = None
    slot: int = -1
    cached: int = 0  # prompt tokens served from the prefix cache, at first admission
    admissions: int = 0  # more than one after preemption
    chain: int | str = ""  # prefix-cache number of the last block registered there, or the salt

    @property
    def is_background(self) -> bool:
        """It has what the others leave."""
        return self.priority <= BACKGROUND

    @classmethod
    def from_message(cls, message: GenerationRequest, arrival: int, max_model_len: int) -> Request:
        return cls(
            id=message.request_id,
            prompt_len=len(message.prompt),
            tokens=[*message.prompt, *message.resumed] if message.resumed else message.prompt,
            limit=min(len(message.prompt) + message.sampling.max_tokens, max_model_len),
            sampling=message.sampling,
            priority=message.priority,
            salt=message.cache_salt,
            order=(-message.priority, arrival),
        )
