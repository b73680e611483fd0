"""Stop strings in a stream of text."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopMatcher:
    """Lets text through up to the first stop string, of which not even a part is ever let through.

    Which match counts: the one that is complete first; of several that are complete with the same
    character, the longest. How the text is cut into pushes makes no difference. What might be the
    beginning of a stop string (the longest such suffix) is held back until it is decided.

    This is an Aho-Corasick automaton. Building it takes time and memory in proportion to the stop
    strings' total length, and each character of text takes constant time on average, however many stop
    strings there are. A state is a node of the trie of all stop strings: the longest suffix of the text
    so far that begins one. So a node's depth is exactly the number of characters to hold back.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        """Raises ValueError for an empty stop string."""
        self.matched: str | None = None  # the stop string that ended the text
        self._held = ""
        self._node = 0
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._match: list[str | None] = [None]  # the longest stop string that ends at this node
        for sequence in sequences:
            self._insert(sequence)
        self._fallback = self._fallbacks()
        self._beginnings = frozenset(self._next[0])

    def push(self, text: str) -> str:
        """Take more text; returns what is now safe to emit. After a match, always ""."""
        if self.matched is not None:
            return ""
        if not self._held and self._beginnings.isdisjoint(text):
            return text  # nearly always: nothing is begun, and nothing begins
        text, start = self._held + text, len(self._held)
        node = self._node
        for at in range(start, len(text)):
            node = self._step(node, text[at])
            if (match := self._match[node]) is not None:
                self.matched, self._held = match, ""
                return text[: at + 1 - len(match)]
        self._node = node
        safe = len(text) - self._depth[node]
        self._held = text[safe:]
        return text[:safe]

    def finish(self) -> str:
        """The text is over: returns what was still held back, "" after a match."""
        held, self._held, self._node = self._held, "", 0
        return held

    def _insert(self, sequence: str) -> None:
        if not sequence:
            raise ValueError("a stop string must not be empty")
        node = 0
        for character in sequence:
            if character not in self._next[node]:
                self._next[node][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[node] + 1)
                self._match.append(None)
            node = self._next[node][character]
        self._match[node] = sequence

    def _fallbacks(self) -> list[int]:
        """For each node, the longest proper suffix of its text that is a node too (breadth first)."""
        fallback = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            node = queue.popleft()
            for character, child in self._next[node].items():
                at = fallback[node]
                while at and character not in self._next[at]:
                    at = fallback[at]
                fallback[child] = self._next[at].get(character, 0)
                if self._match[child] is None:
                    self._match[child] = self._match[fallback[child]]
                queue.append(child)
        return fallback

    def _step(self, node: int, character: str) -> int:
        while node and character not in self._next[node]:
            node = self._fallback[node]
        return self._next[node].get(character, 0)
