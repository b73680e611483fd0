"""Constraints of the service model, collected and reported in the service's wording."""

from __future__ import annotations

import re
from collections.abc import Collection

from outcrop.api import errors

_SHOWN = 256  # characters of a value that an error repeats
_REPORTED = 100  # violations that one error lists


class Constraints:
    """Checks members of one request; `raise_if_violated` reports everything that failed at once.

    Paths are as the service writes them: `inferenceConfig.topP`, `messages.1.member.role` (lists count
    from 1).
    """

    def __init__(self) -> None:
        self._found: list[str] = []

    def required(self, path: str, value: object) -> None:
        if value is None:
            self._add(f"Value null at '{path}'", "Member must not be null")

    def minimum(self, path: str, value: float | None, limit: int) -> None:
        if value is not None and value < limit:
            self._add(_value(path, value), f"Member must have value greater than or equal to {limit}")

    def maximum(self, path: str, value: float | None, limit: int) -> None:
        if value is not None and value > limit:
            self._add(_value(path, value), f"Member must have value less than or equal to {limit}")

    def min_length(self, path: str, value: str | None, limit: int) -> None:
        if value is not None and len(value) < limit:
            self._add(_value(path, value), f"Member must have length greater than or equal to {limit}")

    def size(self, path: str, value: Collection[object] | None, least: int, most: int) -> None:
        """The number of elements, or of characters where the value is not to be shown."""
        if value is None:
            return
        if len(value) < least:
            self._add(f"Value at '{path}'", f"Member must have length greater than or equal to {least}")
        elif len(value) > most:
            self._add(f"Value at '{path}'", f"Member must have length less than or equal to {most}")

    def one_of(self, path: str, value: str | None, allowed: Collection[str]) -> None:
        if value is not None and value not in allowed:
            self._add(_value(path, value), f"Member must satisfy enum value set: [{', '.join(allowed)}]")

    def matches(self, path: str, value: str | None, pattern: re.Pattern[str]) -> None:
        """The value is not shown: it may be the client's own data."""
        if value is not None and not pattern.fullmatch(value):
            self._add(
                f"Value at '{path}'", f"Member must satisfy regular expression pattern: {pattern.pattern}"
            )

    def raise_if_violated(self) -> None:
        if self._found:
            raise errors.violations(self._found)

    def _add(self, value: str, rule: str) -> None:
        if len(self._found) < _REPORTED:
            self._found.append(f"{value} failed to satisfy constraint: {rule}")


def _value(path: str, value: object) -> str:
    shown = str(value)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return f"Value '{shown}' at '{path}'"
