"""Text from outside, told apart from a template's own text in what the template renders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Noncharacters: Unicode reserves them for use inside a program, so ordinary text does not hold them.
MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))

# Words of JSON Schema and of function definitions, to which templates compare what they find there. They
# stay unmarked; no control token is made of one.
_SCHEMA_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        $defs $ref additionalProperties allOf anyOf array boolean const default definitions description enum
        examples exclusiveMaximum exclusiveMinimum format function integer items maxItems maxLength maximum
        minItems minLength minimum name not null nullable number object oneOf parameters pattern properties
        required return string title type uniqueItems
        """,
    )
)


class MarkError(ValueError):
    """Too few marks are left, or a template took a marked text apart."""


class Marks:
    """An opening and a closing mark, characters that occur neither in a template nor in what it renders.

    White space around a text stays outside its marks, so that a template's `trim` works.
    """

    def __init__(self, usable: Iterable[str], texts: Iterable[str]) -> None:
        """usable: marks that the template itself does not hold; texts: all that will be marked.
        Raises MarkError if fewer than two are free."""
        free = set(usable)
        for text in texts:
            free = {mark for mark in free if mark not in text}
        if len(free) < 2:
            raise MarkError("the messages hold nearly all of the noncharacters U+FDD0 to U+FDEF")
        self.opening, self.closing = sorted(free)[:2]

    def mark(self, text: str) -> str:
        core = text.strip()
        if not core:
            return text
        start = len(text) - len(text.lstrip())
        return f"{text[:start]}{self.opening}{core}{self.closing}{text[start + len(core) :]}"

    def mark_nested(self, value: Any) -> Any:
        """A JSON value with its strings and keys marked, save JSON Schema's own words."""
        if isinstance(value, str):
            return value if value in _SCHEMA_WORDS else self.mark(value)
        if isinstance(value, Mapping):
            return {self.mark_nested(key): self.mark_nested(member) for key, member in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mark_nested(item) for item in value]
        return value

    def pieces(self, rendered: str) -> Iterator[tuple[str, str]]:
        """Pairs of a marked text ("" at first) and the template's text behind it. Raises MarkError if
        marks do not alternate."""
        before, *marked = rendered.split(self.opening)
        for content, separator, after in (
            ("", self.closing, before),
            *(part.partition(self.closing) for part in marked),
        ):
            if not separator or self.closing in after:
                raise MarkError(
                    "the model's chat template takes a message's content apart, so that its control tokens "
                    "cannot be told from the content's text"
                )
            yield content, after


def strings_in(value: Any) -> Iterator[str]:
    """All strings and keys of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield key
            yield from strings_in(member)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings_in(item)
