"""One call of a model, gathered while it is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from outcrop.api.caller import Tally
from outcrop.api.errors import ApiError
from outcrop.api.invocation_log.destination import Destination


@dataclass(slots=True)
class Invocation:
    """An `Exchange`. model_id: as the client named it, "" where its body does. metadata: the request's
    header of that name. most: bytes of a request's body that are kept; the server refuses a longer one.
    done: called with this when it has ended."""

    destination: Destination
    request_id: str
    operation: str
    identity: str
    model_id: str
    metadata: str
    most: int
    done: Callable[[Invocation], None]
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    tally: Tally = field(default_factory=Tally)
    request: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)
    content_type: str = ""
    error_code: str = ""

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.request) + len(self.answer)

    def asked(self, chunk: bytes) -> None:
        if len(self.request) <= self.most:
            self.request += chunk

    def began(self, status: int, content_type: str) -> None:
        self.content_type = content_type

    def answered(self, chunk: bytes) -> None:
        self.answer += chunk

    def failed(self, error: ApiError) -> None:
        self.error_code = error.kind.code

    def ended(self) -> None:
        self.done(self)
