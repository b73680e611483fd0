"""Constraints of the service model, collected and reported in the service's wording."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from outcrop.api import errors
from outcrop.api.errors import ApiError

Path = str | tuple[str | int, ...]
"""Where a member is: `inferenceConfig.topP`, or its steps, of which those into lists count from 0."""

_SHOWN = 256  # characters of a value that an error repeats
_REPORTED = 100  # violations that one error lists


class Constraints:
    """Checks members of one request; `raise_if_violated` reports everything that failed at once.

    Answers write paths as the service does. In constraint violations lists count from 1
    (`messages.1.member.role`), elsewhere from 0 (`messages.0.role`).
    """

    def __init__(self) -> None:
        self._found: list[str] = []
        self._ambiguous: ApiError | None = None

    def required(self, path: Path, value: object) -> None:
        if value is None:
            self._add(f"Value null at '{_steps(path)}'", "Member must not be null")

    def minimum(self, path: Path, value: float | None, limit: int) -> None:
        if value is not None and value < limit:
            self._add(_value(path, value), f"Member must have value greater than or equal to {limit}")

    def maximum(self, path: Path, value: float | None, limit: int) -> None:
        if value is not None and value > limit:
            self._add(_value(path, value), f"Member must have value less than or equal to {limit}")

    def size(self, path: Path, value: Collection[object] | None, least: int, most: int | None) -> None:
        """The number of elements, bytes or characters. Only a string that is too short is shown."""
        if value is None:
            return
        if len(value) < least:
            shown = _value(path, value) if isinstance(value, str) else f"Value at '{_steps(path)}'"
            self._add(shown, f"Member must have length greater than or equal to {least}")
        elif most is not None and len(value) > most:
            self._add(f"Value at '{_steps(path)}'", f"Member must have length less than or equal to {most}")

    def one_of(self, path: Path, value: str | None, allowed: Collection[str]) -> None:
        if value is not None and value not in allowed:
            self._add(_value(path, value), f"Member must satisfy enum value set: [{', '.join(allowed)}]")

    def matches(self, path: Path, value: str | None, pattern: re.Pattern[str]) -> None:
        """The value is not shown: it may be the client's own data."""
        if value is not None and not pattern.fullmatch(value):
            self._add(
                f"Value at '{_steps(path)}'",
                f"Member must satisfy regular expression pattern: {pattern.pattern}",
            )

    def exactly_one(self, path: Path, shape: str, members: Sequence[str], found: int) -> None:
        """A union sets one of its members. The service reports this by itself, after all violations."""
        if found != 1 and self._ambiguous is None:
            self._ambiguous = errors.union_not_one(shape, dotted(path), members, found)

    def raise_if_violated(self) -> None:
        """Raises ValidationException."""
        if self._found:
            raise errors.violations(self._found)
        if self._ambiguous is not None:
            raise self._ambiguous

    def _add(self, value: str, rule: str) -> None:
        if len(self._found) < _REPORTED:
            self._found.append(f"{value} failed to satisfy constraint: {rule}")


def dotted(path: Path) -> str:
    """A path as the service's sentences write it: `messages.0.content.1`."""
    return path if isinstance(path, str) else ".".join(map(str, path))


def _steps(path: Path) -> str:
    if isinstance(path, str):
        return path
    return ".".join(step if isinstance(step, str) else f"{step + 1}.member" for step in path)


def _value(path: Path, value: object) -> str:
    shown = str(value)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return f"Value '{shown}' at '{_steps(path)}'"
