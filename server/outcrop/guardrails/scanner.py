"""A text that grows, let through as far as it is decided, masked, and up to what is to be blocked."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop.guardrails.filter import Action, Filter, Filters, Hit

WINDOW = 4096
"""Characters that are held back at most. What has not ended so far from its beginning is taken as if the text
ended there: so neither memory nor the time that a piece of text takes depends on what filters match."""

_REPORTED = 1000  # findings of one text that are kept


@dataclass(frozen=True, slots=True)
class Finding:
    """A filter, and the very text that it matched."""

    filter: Filter
    match: str


class Scanner:
    """Takes one text in pieces. How it is cut makes no difference to what comes out and to what is found.

    Hits count in the order of their beginnings. What a mask covers is not masked again; of a hit that begins
    within another and goes on behind it, the rest is masked. The first hit that blocks ends the text: what
    stands before it has been let through, of itself nothing is.

    findings: so far. blocked: nothing more is let through, ever. characters: of the text so far.
    """

    def __init__(self, filters: Filters, *, window: int = WINDOW) -> None:
        self.findings: list[Finding] = []
        self.blocked = False
        self.characters = 0
        self._filters = filters
        self._window = window
        self._text = ""  # what is not decided, after the last decided character, if there was one
        self._base = 0  # where in it the undecided begins: 0 or 1
        self._passed = 0  # where in it what has not been let through or masked begins
        self._resume = [0] * len(filters.finders)
        # Found already, but about what is not decided yet, each with the rank of its finder.
        self._pending: list[tuple[int, Hit]] = []

    def push(self, text: str) -> str:
        """Take more text; returns what of it, and of what was held back, is safe now."""
        self.characters += len(text)
        out: list[str] = []
        # In pieces, so that a long text is not copied whole at every step through it.
        for start in range(0, len(text), self._window):
            if self.blocked:
                break
            self._text += text[start : start + self._window]
            out += self._advance(final=False)
        return "".join(out)

    def finish(self) -> str:
        """The text is over; returns the rest of it. Another may follow, which has nothing to do with it."""
        if self.blocked:
            return ""
        rest = "".join(self._advance(final=True))
        self._text, self._base, self._passed = "", 0, 0
        self._resume = [0] * len(self._resume)
        return rest

    def _advance(self, *, final: bool) -> list[str]:
        """The pieces that can be let through."""
        out: list[str] = []
        while self._base < len(self._text) and not self.blocked:
            window = self._text[: self._base + self._window]
            if final and len(window) == len(self._text):
                stop = len(window)
            else:
                undecided = (each.undecided(window, self._base) for each in self._filters.horizons)
                stop = min(undecided, default=len(window))
                if stop == self._base:
                    if len(window) < self._base + self._window:
                        break  # more text may decide it
                    stop = len(window)
            self._decide(window, stop, out)
            self._drop(stop)
        return out

    def _decide(self, text: str, stop: int, out: list[str]) -> None:
        """Act upon what begins in text[base:stop]."""
        for index, finder in enumerate(self._filters.finders):
            for hit in finder.find(text, max(self._base, self._resume[index]), stop):
                self._resume[index] = hit.resume
                self._pending.append((index, hit))
        self._pending.sort(key=lambda each: (each[1].start, -each[1].end, each[0]))
        decided = [hit for _, hit in self._pending if hit.start < stop]
        del self._pending[: len(decided)]
        for hit in decided:
            if len(self.findings) < _REPORTED:
                self.findings.append(Finding(hit.filter, text[hit.start : hit.end]))
            if hit.filter.action is Action.BLOCK:
                out.append(text[self._passed : hit.start])
                self.blocked = True
                return
            if hit.filter.action is Action.ANONYMIZE and hit.end > self._passed:
                out += (text[self._passed : hit.start], hit.filter.mask)
                self._passed = hit.end
        out.append(text[self._passed : stop])
        self._passed = max(self._passed, stop)

    def _drop(self, stop: int) -> None:
        """Forget what is decided but its last character, which says whether a word goes on."""
        cut = stop - 1
        self._text = self._text[cut:]
        self._base = 1
        self._passed -= cut
        self._resume = [each - cut for each in self._resume]
        self._pending = [
            (rank, Hit(hit.start - cut, hit.end - cut, hit.resume - cut, hit.filter))
            for rank, hit in self._pending
        ]
