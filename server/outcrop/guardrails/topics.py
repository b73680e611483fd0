"""Topics, known by their keywords: what can be said of a topic without a model that understands it.

The keywords of a text are its words less those that every text has (`STOP_WORDS`), in lower case and without
`-ing`, `-ed`, `-s` and `-e`. A sentence is about a topic if it has
- all keywords of the topic's name, or
- of the topic's definition, or of one of its examples, at least half of the keywords and at least two, or the
  only one there is.

So a definition or an example should name what it is about, and examples of several wordings find more. A
sentence ends with `.`, `!`, `?` or `…` and white space, or with the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from outcrop.guardrails.filter import Filter, Hit

_STOP_WORDS = """
    a about all am an and any are as ask asks asking at be because been but by can could did do does doing
    etc explain for from get give given gives has have having help her here hers him his how i if in inquiry
    inquiries into is it its know let like made make makes many may me might more most much must my need no
    not of on one or other our out over please provide provides providing question questions recommend
    recommendation recommendations regarding related relating request requests say she should show so some
    such tell than that the their them then there these they thing things this those to too topic us use
    used using very want wants was we were what when where which who whom whose why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_END = re.compile(r"[.!?…]+\s|\n")
_SUFFIXES = ("ing", "ed", "s")
_SHORTEST = 3


@dataclass(frozen=True, slots=True)
class Topic:
    """filter: the topic's. texts: its definition and its examples."""

    filter: Filter
    texts: Sequence[str] = ()

    def sets(self) -> list[tuple[frozenset[str], int]]:
        """Sets of keywords, each with how many of them must be there."""
        name = keywords(self.filter.name)
        found = [(name, len(name))]
        for text in self.texts:
            words = keywords(text)
            found.append((words, min(len(words), max(2, math.ceil(len(words) / 2)))))
        return [(words, least) for words, least in found if words]


def keywords(text: str) -> frozenset[str]:
    return frozenset(filter(None, (_keyword(word) for word in _WORD.findall(text))))


def _keyword(word: str) -> str:
    """ "" for a word that is none."""
    word = word.lower().partition("'")[0].partition("’")[0]
    if word in STOP_WORDS:
        return ""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST:
            word = word.removesuffix(suffix)
            break
    return word.removesuffix("e") if len(word) > _SHORTEST else word


class TopicFinder:
    """Finds the sentences about one topic. A hit is from the first to the last of its keywords in them."""

    def __init__(self, topic: Topic) -> None:
        self._filter = topic.filter
        self._sets = topic.sets()
        self._all = frozenset().union(*(words for words, _ in self._sets))

    def find(self, text: str, start: int, stop: int) -> Iterator[Hit]:
        for end, spoken in _spoken(text, start, stop):
            found = [each for each in spoken if each[0] in self._all]
            if found and found[0][1] < stop and self._is_about(frozenset(word for word, *_ in found)):
                yield Hit(found[0][1], found[-1][2], end, self._filter)

    def _is_about(self, found: frozenset[str]) -> bool:
        return any(len(words & found) >= least for words, least in self._sets)


class TopicHorizon:
    """The horizon of several topics: from the first keyword of any of them on, a sentence is undecided until
    it ends."""

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._all = frozenset(word for topic in topics for words, _ in topic.sets() for word in words)

    def undecided(self, text: str, start: int) -> int:
        for end in _END.finditer(text, start):
            start = end.end()
        for match in _words(text, start, len(text)):
            if match.end() == len(text) or _keyword(match[0]) in self._all:
                return match.start()
        return len(text)


@lru_cache(maxsize=16)  # every topic of a guardrail asks for the same
def _spoken(text: str, start: int, stop: int) -> Sequence[tuple[int, Sequence[tuple[str, int, int]]]]:
    """The sentences that begin in text[start:stop]: where each ends, and its keywords, each with where it
    begins and ends."""
    return [
        (
            end,
            [
                (word, match.start(), match.end())
                for match in _words(text, begin, end)
                if (word := _keyword(match[0]))
            ],
        )
        for begin, end in _sentences(text, start)
        if begin < stop
    ]


def _words(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """The words of text[start:end], less the rest of one that began before it."""
    if 0 < start < end and text[start - 1].isalnum():
        while start < end and text[start].isalnum():
            start += 1
    return _WORD.finditer(text, start, end)


def _sentences(text: str, start: int) -> Iterator[tuple[int, int]]:
    for end in _END.finditer(text, start):
        yield start, end.end()
        start = end.end()
    if start < len(text):
        yield start, len(text)
