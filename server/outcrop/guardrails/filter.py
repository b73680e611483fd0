"""What a guardrail looks for, one thing a filter, and where it was found."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Action(enum.StrEnum):
    """What is done about what a filter finds."""

    BLOCK = "BLOCK"  # all of it is replaced by a message
    ANONYMIZE = "ANONYMIZE"  # the match is replaced by the filter's name
    NONE = "NONE"  # it is reported


class Policy(enum.StrEnum):
    """The kinds of filters."""

    TOPIC = "topic"
    WORD = "word"
    MANAGED_WORD = "managed_word"
    PII = "pii"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Filter:
    """name: the topic's, the type's, the regular expression's; of words, the word or the list. regex: as its
    author wrote it."""

    policy: Policy
    name: str
    action: Action
    regex: str = ""

    @property
    def mask(self) -> str:
        """What stands in the place of a match, as the service writes it."""
        return f"{{{self.name}}}"


@dataclass(frozen=True, slots=True)
class Hit:
    """A match: text[start:end] is what it is about. resume: where its finder goes on."""

    start: int
    end: int
    resume: int
    filter: Filter


class Finder(Protocol):
    """Finds hits that have come to an end: more text after them would change nothing."""

    def find(self, text: str, start: int, stop: int) -> Iterable[Hit]:
        """Those that begin in text[start:stop]. What stands before `start` is looked at, but not matched."""


class Horizon(Protocol):
    """Says what of a text that goes on is not decided yet."""

    def undecided(self, text: str, start: int) -> int:
        """The first index from `start` at which a hit might have begun that more text would complete or
        change; the text's length if there is none."""


@dataclass(frozen=True, slots=True)
class Filters:
    """All that is looked for in one direction, with the finders and horizons that do so. policies: those that
    have any filter."""

    every: tuple[Filter, ...] = ()
    finders: tuple[Finder, ...] = ()
    horizons: tuple[Horizon, ...] = ()

    @property
    def policies(self) -> frozenset[Policy]:
        return frozenset(each.policy for each in self.every)
