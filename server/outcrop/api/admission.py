"""How much work the API takes on at once, and when it takes none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from outcrop.api import errors
from outcrop.catalog.reservation import Reservation


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds on what clients may ask of the API process.

    max_inflight: generations admitted at once for each replica; further ones are throttled. max_body_bytes:
    of one request (the service's own limit for InvokeModel). body_timeout: seconds within which a body must
    arrive. tokenizer_threads: prompts tokenized side by side. strict: refuse what Bedrock's own Llama
    refuses. fault_injection: let a call ask for the error, delay or broken stream it is to get. seed: of
    calls that give none, so that an answer depends on its request alone; None draws one for each.
    """

    max_inflight: int = 256
    max_body_bytes: int = 25_000_000
    body_timeout: float = 60.0
    tokenizer_threads: int = 4
    strict: bool = False
    fault_injection: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_inflight", "max_body_bytes", "body_timeout", "tokenizer_threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


class Admission:
    """Counts the generations in progress. Used from the event loop alone, so it needs no lock.

    What is admitted grows and shrinks with the replicas that are ready: of those that are lost, the requests
    go on at the others, and what they cannot take is better told at once than after a wait.

    Reserved places are nobody else's, taken or not: a generation with a reservation that has room is always
    admitted, and the others share what no reservation holds.
    """

    def __init__(
        self,
        max_inflight: int,
        replicas: Callable[[], int] = lambda: 1,
        reserved: Callable[[], int] = lambda: 0,
    ) -> None:
        """max_inflight: for each of `replicas()`, which is at least 1. reserved: the places that are reserved
        at the moment."""
        self._max_inflight = max_inflight
        self._replicas = replicas
        self._reserved = reserved
        self._inflight = 0
        self._in_reserved_places = 0
        self._leaving = False
        self._draining = False

    @property
    def inflight(self) -> int:
        return self._inflight

    @property
    def leaving(self) -> bool:
        """Whether the server is on its way out; calls may still be admitted."""
        return self._leaving

    @property
    def draining(self) -> bool:
        return self._draining

    def leave(self) -> None:
        """Admit calls as before, and let readiness say that they should go elsewhere."""
        self._leaving = True

    def drain(self) -> None:
        """Admit nothing more; what is in progress goes on to its end."""
        self._leaving = self._draining = True

    def check(self, reservation: Reservation | None = None) -> None:
        """Raises ServiceUnavailableException while draining and ThrottlingException while full."""
        if self._draining:
            raise errors.service_unavailable()
        if reservation is not None and reservation.has_room:
            return
        shared = self._max_inflight * self._replicas() - self._reserved()
        if self._inflight - self._in_reserved_places >= shared:
            raise errors.too_many_requests()

    @contextmanager
    def slot(self, reservation: Reservation | None = None) -> Iterator[bool]:
        """Hold one place among the generations in progress; whether it is one of the reservation. Raises as
        `check` does."""
        self.check(reservation)
        own = reservation is not None and reservation.has_room
        self._count(1, reservation if own else None)
        try:
            yield own
        finally:
            self._count(-1, reservation if own else None)

    def _count(self, change: int, reservation: Reservation | None) -> None:
        self._inflight += change
        if reservation is not None:
            reservation.in_use += change
            self._in_reserved_places += change
