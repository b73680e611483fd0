"""One JSON object, checked while it arrives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

_MAX_DEPTH = 256  # Python's own decoder gives up at about 1,000
_MAX_SCALAR = 4096  # characters of a number; Python turns no more than 4,300 digits into an integer
_SPACE = re.compile(r"[ \t\n\r]+")
_STRING_RUN = re.compile(r'[^"\\\x00-\x1f]+')
_SCALAR_RUN = re.compile(r"[0-9a-zA-Z+.-]+")
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_HEX = frozenset("0123456789abcdefABCDEF")

_Step = Callable[[str, int], int]


class JsonObject:
    """Follows the JSON grammar character by character, in constant time each.

    What `push` returns is the object's own text, but for control characters that stand raw in a string,
    which models write and JSON forbids: they come out escaped. `done`: the object is complete. `failed`:
    this is not JSON, or nested too deeply for anyone to read.
    """

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._open: list[str] = []  # the closing brackets that are due
        self._scalar = ""
        self._hex_digits = 0
        self._in_key = False
        self._out: list[str] = []
        self._step: _Step = self._value

    def push(self, text: str, start: int) -> tuple[str, int]:
        """Take text from `start` on, as far as the object goes. Returns its JSON text and where it ended."""
        self._out = []
        at = start
        while at < len(text) and not self.done and not self.failed:
            if self._step not in (self._string, self._escape, self._hex, self._number_or_word) and (
                space := _SPACE.match(text, at)
            ):
                at = self._take(space[0], at)
            else:
                at = self._step(text, at)
        return "".join(self._out), at

    def _take(self, text: str, at: int) -> int:
        self._out.append(text)
        return at + len(text)

    def _fail(self, at: int) -> int:
        self.failed = True
        return at

    def _value(self, text: str, at: int) -> int:
        character = text[at]
        if not self._open and character != "{":
            return self._fail(at)
        if character in "{[":
            if len(self._open) == _MAX_DEPTH:
                return self._fail(at)
            self._open.append("}" if character == "{" else "]")
            self._step = self._first_key if character == "{" else self._first_item
            return self._take(character, at)
        if character == '"':
            self._in_key, self._step = False, self._string
            return self._take(character, at)
        self._scalar, self._step = "", self._number_or_word
        return at

    def _first_item(self, text: str, at: int) -> int:
        return self._close(text, at) if text[at] == "]" else self._value(text, at)

    def _first_key(self, text: str, at: int) -> int:
        return self._close(text, at) if text[at] == "}" else self._key(text, at)

    def _key(self, text: str, at: int) -> int:
        if text[at] != '"':
            return self._fail(at)
        self._in_key, self._step = True, self._string
        return self._take('"', at)

    def _colon(self, text: str, at: int) -> int:
        if text[at] != ":":
            return self._fail(at)
        self._step = self._value
        return self._take(":", at)

    def _comma_or_end(self, text: str, at: int) -> int:
        if text[at] != ",":
            return self._close(text, at)
        self._step = self._key if self._open[-1] == "}" else self._value
        return self._take(",", at)

    def _close(self, text: str, at: int) -> int:
        if text[at] != self._open[-1]:
            return self._fail(at)
        self.done = len(self._open) == 1
        self._step = self._comma_or_end
        return self._take(self._open.pop(), at)

    def _string(self, text: str, at: int) -> int:
        if run := _STRING_RUN.match(text, at):
            return self._take(run[0], at)
        character = text[at]
        if character == '"':
            self._step = self._colon if self._in_key else self._comma_or_end
        elif character == "\\":
            self._step = self._escape
        else:
            self._out.append(json.dumps(character)[1:-1])
            return at + 1
        return self._take(character, at)

    def _escape(self, text: str, at: int) -> int:
        character = text[at]
        if character == "u":
            self._hex_digits, self._step = 4, self._hex
        elif character in '"\\/bfnrt':
            self._step = self._string
        else:
            return self._fail(at)
        return self._take(character, at)

    def _hex(self, text: str, at: int) -> int:
        if text[at] not in _HEX:
            return self._fail(at)
        self._hex_digits -= 1
        if not self._hex_digits:
            self._step = self._string
        return self._take(text[at], at)

    def _number_or_word(self, text: str, at: int) -> int:
        if run := _SCALAR_RUN.match(text, at):
            self._scalar += run[0]
            return self._take(run[0], at) if len(self._scalar) <= _MAX_SCALAR else self._fail(at)
        if not _SCALAR.fullmatch(self._scalar):
            return self._fail(at)
        self._step = self._comma_or_end
        return at
