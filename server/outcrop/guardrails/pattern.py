"""Regular expressions of guardrails: Python's syntax, less what takes more than linear time, run by RE2.

RE2 never backtracks: a search takes time in proportion to pattern and text, whatever both are. It does not
say, though, whether a text that is still growing might become a match. But the beginnings of what a regular
expression matches are a regular language, too: from the expression's parse tree a second one is written that
matches exactly them, at the end of a text.

Letters, digits and white space in `\\w`, `\\d`, `\\s` and `\\b` are those of ASCII, as in RE2.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import re2

# Python's own parser, so that the syntax is known to everybody. It has been private to `re` under this name
# since Python 3.11, and has no other.
_parser: Any = importlib.import_module("re._parser")

MAX_PROGRAM = 8_000
"""Instructions of RE2 that one pattern may take; a search takes at most as many steps for a character."""

VALUE = "value"
"""The name of the group that is what a match is about, where that is not all of it."""

_MEMORY = 32 << 20  # bytes, of one RE2 object with its automata
# Of patterns in one RE2 object: the time that it takes to compile grows as the square of either.
_CHARACTERS = 16_000
_INSTRUCTIONS = 4_000
_CLASSES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_PLACES = {
    "AT_BEGINNING": r"^",
    "AT_BEGINNING_STRING": r"\A",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
    "AT_END": r"$",
    "AT_END_STRING": r"\z",
}
_REFUSED = {
    "ASSERT": "lookahead and lookbehind",
    "ASSERT_NOT": "lookahead and lookbehind",
    "GROUPREF": "references to groups",
    "GROUPREF_EXISTS": "conditions on groups",
    "ATOMIC_GROUP": "atomic groups",
    "POSSESSIVE_REPEAT": "possessive repetition",
}
_FLAGS = ((re.IGNORECASE, "i"), (re.MULTILINE, "m"), (re.DOTALL, "s"))


class PatternError(ValueError):
    """A pattern that cannot be used; says why."""


class Pattern:
    """One regular expression. The group named `VALUE`, if it has one, is what a match is about.

    beginnings: what matches the beginnings of its matches. size: instructions of RE2 that it takes.
    """

    def __init__(self, source: str) -> None:
        """Raises PatternError."""
        try:
            tree = _parser.parse(source)
            value = tree.state.groupdict.get(VALUE)
            scope = f"(?{_flags(tree.state.flags)}:"
            self.beginnings = f"{scope}{_Writer().beginnings(tree)})"
            self._regex = compiled(f"{scope}{_Writer(value).whole(tree)})")
        except RecursionError:
            raise PatternError("it is nested too deeply") from None
        except (re.error, OverflowError) as error:
            raise PatternError(str(error)) from None
        self.size: int = self._regex.programsize
        if self.size > MAX_PROGRAM:
            raise PatternError("it is too large: repeat less, or shorter parts")
        self._value = 0 if value is None else 1

    def search(self, text: str, start: int) -> tuple[int, int, int, int] | None:
        """The first match from `start`, if there is one: where it begins and ends, and where what it is about
        does. Matches of nothing do not count."""
        while (found := self._regex.search(text, start)) is not None:
            begin, end = found.span()
            if end > begin:
                return begin, end, *found.span(self._value)
            if begin >= len(text):
                break
            start = begin + 1
        return None


class Beginnings:
    """The horizon of several patterns."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        """Raises PatternError."""
        groups: list[list[Pattern]] = []
        for pattern in patterns:
            if not groups or not _fit([*groups[-1], pattern]):
                groups.append([])
            groups[-1].append(pattern)
        together = ("|".join(each.beginnings for each in group) for group in groups)
        self._regexes = [compiled(f"(?:{each})\\z") for each in together]

    def undecided(self, text: str, start: int) -> int:
        found = (regex.search(text, start) for regex in self._regexes)
        return min((int(each.start()) for each in found if each is not None), default=len(text))


def _fit(patterns: Sequence[Pattern]) -> bool:
    """Whether the beginnings of these may be in one RE2 object."""
    characters = sum(len(each.beginnings) for each in patterns)
    return characters <= _CHARACTERS and sum(each.size for each in patterns) <= _INSTRUCTIONS


def compiled(pattern: str) -> Any:
    """Raises PatternError."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise PatternError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None


def _flags(flags: int) -> str:
    return "".join(letter for flag, letter in _FLAGS if flags & flag)


class _Writer:
    """Writes a parse tree in RE2's syntax. Characters are written by their numbers: none of them means
    anything else."""

    def __init__(self, value: int | None = None) -> None:
        """value: the group that stays one."""
        self._value = value

    def whole(self, nodes: Iterable[Any]) -> str:
        """What the nodes match, one after another."""
        return "".join(map(self._node, nodes))

    def beginnings(self, nodes: Sequence[Any]) -> str:
        """The beginnings of what the nodes match, nothing and all of it among them."""
        written = ""
        for node in reversed(list(nodes)):
            whole = self._node(node)
            # Written from the end, for a pattern of many parts is as deep as it is long.
            if str(node[0]) in ("BRANCH", "SUBPATTERN", "MAX_REPEAT", "MIN_REPEAT"):
                written = f"(?:{whole}{written}|{self._beginnings(node)})"
            else:
                written = f"(?:{whole}{written})?"
        return written

    def _beginnings(self, node: Any) -> str:
        operation, argument = str(node[0]), node[1]
        if operation == "BRANCH":
            return f"(?:{'|'.join(self.beginnings(each) for each in argument[1])})"
        if operation == "SUBPATTERN":
            _, added, removed, inner = argument
            return f"(?{self._scope(added, removed)}:{self.beginnings(inner)})"
        _, most, inner = argument
        if most == 0:
            return ""
        before = "*" if str(most) == "MAXREPEAT" else f"{{0,{most - 1}}}"
        # As many of the inner as may be, and then the beginning of one.
        return f"(?:{self.whole(inner)}){before}{self.beginnings(inner)}"

    def _node(self, node: Any) -> str:
        operation, argument = str(node[0]), node[1]
        match operation:
            case "LITERAL":
                return _character(argument)
            case "NOT_LITERAL":
                return f"[^{_character(argument)}]"
            case "ANY":
                return "."
            case "IN":
                return self._set(argument)
            case "AT":
                return _PLACES[str(argument)]
            case "BRANCH":
                return f"(?:{'|'.join(map(self.whole, argument[1]))})"
            case "SUBPATTERN":
                return self._group(argument)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, inner = argument
                bound = "" if str(most) == "MAXREPEAT" else str(most)
                lazy = "?" if operation == "MIN_REPEAT" else ""
                return f"(?:{self.whole(inner)}){{{least},{bound}}}{lazy}"
        raise PatternError(f"{_REFUSED.get(operation, operation)} are not supported")

    def _group(self, argument: Any) -> str:
        group, added, removed, inner = argument
        if group is not None and group == self._value:
            return f"({self.whole(inner)})"
        return f"(?{self._scope(added, removed)}:{self.whole(inner)})"

    def _scope(self, added: int, removed: int) -> str:
        less = _flags(removed)
        return _flags(added) + (f"-{less}" if less else "")

    def _set(self, members: Iterable[Any]) -> str:
        written = ""
        for operation, argument in members:
            match str(operation):
                case "NEGATE":
                    written += "^"
                case "LITERAL":
                    written += _character(argument)
                case "RANGE":
                    written += f"{_character(argument[0])}-{_character(argument[1])}"
                case "CATEGORY":
                    written += _CLASSES[str(argument)]
        return f"[{written}]"


def _character(number: int) -> str:
    return f"\\x{{{number:x}}}"
