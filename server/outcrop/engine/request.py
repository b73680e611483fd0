"""A request while the engine works on it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from outcrop.engine.edits import LogitEdits
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams


class Status(enum.Enum):
    BUILDING = enum.auto()  # its grammar is being built elsewhere; holds nothing
    WAITING = enum.auto()  # holds nothing
    RUNNING = enum.auto()  # holds blocks and a slot
    DRAINING = enum.auto()  # preempted or finished; holds its blocks until its last submitted step is in


@dataclass(slots=True, eq=False)
class Request:
    """Counters do the bookkeeping: "computed catches up with total".

    tokens: prompt and output known to the host. pending: tokens sampled on the device that the host has
    not read yet. computed: positions whose KV a submitted step writes. confirmed: positions whose step
    was collected. in_flight: submitted, uncollected steps with a row of this request. prefilled: the
    step that samples from the last known token was submitted, so the next token is on the device.
    edits: of the logits of its next token, up to date with `tokens`.
    """

    id: str
    arrival: int
    prompt_len: int
    tokens: list[int]
    sampling: SamplingParams
    priority: int
    salt: str
    status: Status = Status.WAITING
    pending: int = 0
    computed: int = 0
    confirmed: int = 0
    in_flight: int = 0
    prefilled: bool = False
    edits: LogitEdits | None = None
    finish: FinishReason | None = None
    blocks: list[int] = field(default_factory=list)
    slot: int = -1
    cached: int = 0  # prompt tokens served from the prefix cache, at first admission
    admissions: int = 0  # more than one after preemption
    registered: int = 0  # leading blocks known to the prefix cache
    chain: int | str = ""  # prefix-cache number of the last of those, or the salt

    @classmethod
    def from_message(cls, message: GenerationRequest, arrival: int) -> Request:
        return cls(
            id=message.request_id,
            arrival=arrival,
            prompt_len=len(message.prompt),
            tokens=[*message.prompt, *message.resumed],
            sampling=message.sampling,
            priority=message.priority,
            salt=message.cache_salt,
        )

    @property
    def order(self) -> tuple[int, int]:
        """Sorts first what runs first: higher priority, then earlier arrival."""
        return (-self.priority, self.arrival)

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def total(self) -> int:
        """Tokens of the sequence, those still on the device included."""
        return len(self.tokens) + self.pending

    @property
    def prefill_left(self) -> int:
        """Known tokens whose KV is still to be computed before the next token can be sampled."""
        return 0 if self.prefilled else len(self.tokens) - self.computed

    @property
    def awaits_token(self) -> bool:
        """What may come next depends on a token that the host has not read yet."""
        return self.pending > 0 and self.edits is not None and self.edits.follows_tokens

    def append(self, token: int) -> None:
        """A token the host has just read."""
        self.tokens.append(token)
        if self.edits is not None:
            self.edits.accept(token)

    def may_sample(self, max_model_len: int) -> bool:
        """Whether one more token may be asked for, counting those not read yet."""
        return self.num_output + self.pending < self.sampling.max_tokens and self.total < max_model_len
