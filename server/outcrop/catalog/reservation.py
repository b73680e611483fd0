"""Places among a model's requests that belong to one name of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Reservation:
    """units: requests in progress that have a place of their own, ahead of all others. in_use: those places
    that are taken. Used from the event loop alone, so it needs no lock."""

    units: int
    in_use: int = 0

    @property
    def has_room(self) -> bool:
        return self.in_use < self.units
