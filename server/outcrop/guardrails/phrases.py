"""Words and phrases, thousands of them, found as they are written but for case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from outcrop.guardrails.filter import Filter, Hit

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w")
_HERE: Any = object()  # in a node: the filters whose phrase ends there

Node = dict[Any, Any]


class Phrases:
    """Finder and horizon of phrases.

    A phrase is a row of words and marks. Words match whole, so `ass` is not in `class`; white space within a
    phrase matches any white space. Phrases may overlap. All are in one tree by their words, so a text takes
    as long with ten thousand as with one.
    """

    def __init__(self, phrases: Mapping[Filter, Iterable[str]]) -> None:
        """phrases: of each filter. Those without a word or mark match nothing."""
        self._root: Node = {}
        for filter_, texts in phrases.items():
            for text in texts:
                self._insert(text, filter_)

    def find(self, text: str, start: int, stop: int) -> Iterator[Hit]:
        tokens = list(_tokens(text, start))
        for index, token in enumerate(tokens):
            if token.start() >= stop:
                return
            for end, filters in self._walk(text, tokens, index):
                for filter_ in filters:
                    yield Hit(token.start(), end, token.end(), filter_)

    def undecided(self, text: str, start: int) -> int:
        tokens = list(_tokens(text, start))
        # The last word may go on.
        if tokens and tokens[-1].end() == len(text) and _WORD.match(tokens[-1][0]):
            open_from = tokens.pop().start()
        else:
            open_from = len(text)
        for index, token in enumerate(tokens):
            if self._is_open(text, tokens, index):
                return token.start()
        return open_from

    def _insert(self, phrase: str, filter_: Filter) -> None:
        node = self._root
        tokens = list(_TOKEN.finditer(phrase))
        for index in range(len(tokens)):
            node = node.setdefault(_key(phrase, tokens, index, first=0), {})
        if tokens:
            node.setdefault(_HERE, []).append(filter_)

    def _walk(self, text: str, tokens: list[re.Match[str]], first: int) -> Iterator[tuple[int, list[Filter]]]:
        """The phrases that begin at a token: where each ends, and whose it is."""
        node = self._root
        for index in range(first, len(tokens)):
            following = node.get(_key(text, tokens, index, first=first))
            if following is None:
                return
            node = following
            if _HERE in node:
                yield tokens[index].end(), node[_HERE]

    def _is_open(self, text: str, tokens: list[re.Match[str]], first: int) -> bool:
        """Whether all that is there from a token on begins a longer phrase."""
        node = self._root
        for index in range(first, len(tokens)):
            following = node.get(_key(text, tokens, index, first=first))
            if following is None:
                return False
            node = following
        return any(key is not _HERE for key in node)


def _tokens(text: str, start: int) -> Iterator[re.Match[str]]:
    """The words and marks from `start`, less the rest of a word that began before it."""
    if 0 < start < len(text) and _WORD.match(text[start - 1]):
        while start < len(text) and _WORD.match(text[start]):
            start += 1
    return _TOKEN.finditer(text, start)


def _key(text: str, tokens: list[re.Match[str]], index: int, first: int) -> str:
    """A token as the tree has it: after a space, where there is any before it, unless it is the first."""
    word = tokens[index][0].lower()
    if index > first and tokens[index - 1].end() < tokens[index].start():
        return f" {word}"
    return word
