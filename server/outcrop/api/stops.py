"""How many stop sequences a request may have, whatever protocol it speaks."""

from __future__ import annotations

from collections.abc import Sequence

from outcrop.api.field_error import FieldError

MAX_STOP_CHARACTERS = 25_000
"""Of all stop sequences together: looking for them takes time and memory in proportion."""


def checked(path: str, sequences: Sequence[str] | None) -> Sequence[str]:
    """The stop sequences of a request; path: where they are. Raises FieldError for too long ones."""
    if sum(map(len, sequences or ())) > MAX_STOP_CHARACTERS:
        raise FieldError(
            path,
            f"They must not have more than {MAX_STOP_CHARACTERS} characters together. Remove some of them.",
        )
    return sequences or ()
