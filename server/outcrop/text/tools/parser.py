"""Calls and text told apart while an answer arrives."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from outcrop.text.tools.json_object import JsonObject
from outcrop.text.tools.pieces import CallEnd, CallInput, CallStart, Piece, TextPiece
from outcrop.text.tools.python_call import python_arguments

PYTHON_TAG = "<|python_tag|>"
MARKERS = (PYTHON_TAG, "<tool_call>", "</tool_call>")  # what a call may stand behind, or between

_MAX_HELD = 1 << 16  # characters of a call that cannot be streamed: in Python form, or arguments first
_MAX_SPACE = 1 << 10
_MAX_ID = 128

_SPACES = re.compile(r"[ \t\r\n]*")
_GLUE = re.compile(r"[ \t\r\n,;\]}]*")  # between calls, and behind the last
# What surely begins no call. White space may stand before one and is then not part of the text.
_PLAIN = re.compile(r"[^ \t\r\n{\[<`]++(?:[ \t\r\n]{1,8}+[^ \t\r\n{\[<`]++)*+")
_FENCE_LANGUAGE = re.compile(r"[a-z_]*")
_PYTHON_RUN = re.compile(r"[^'\"()\[\]{}]*")
_QUOTED = {quote: re.compile(rf"[^\\{quote}]*") for quote in "'\""}
_PYTHON_ESCAPES = frozenset("\n\\'\"abfnrtvxNuU01234567")

_Wait = Generator[None, None, None]  # yields where more text is needed
_WaitFor = Generator[None, None, str]


class _Words:
    """Words of which one may follow; none begins another."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(words)
        self.prefixes = frozenset(word[:end] for word in self.words for end in range(1, len(word) + 1))


_TAGS = _Words(MARKERS)
_FENCE = _Words(["```"])
_KEYS = _Words(f'"{key}"' for key in ("name", "type", "function", "parameters", "arguments", "id"))
_FUNCTION = _Words(['"function"'])


class _NotACall(Exception):
    """What has been read is text after all."""


@dataclass(slots=True)
class _Head:
    """What is known of a JSON call before its arguments are streamed."""

    name: str = ""
    arguments: str = "{}"
    depth: int = 1  # of the object that describes the call; 2 inside {"function": {...}}


class ToolParser:
    """Turns the text of one growing answer into text pieces and calls of known tools.

    Understood, anywhere in the answer and however often:
    - `{"name": "f", "parameters": {...}}`, also with "arguments", "type": "function", "id", an OpenAI-like
      {"function": {"name": ...}}, Llama's {"function": "f"}, and any white space;
    - `[f(x=1), g(y="a")]` as Llama 3.2 writes it, and `f(x=1)` or `f.call(x=1)` after <|python_tag|>;
    - lists of calls, and calls separated by commas, semicolons, white space or nothing;
    - all of it behind <|python_tag|>, in <tool_call> tags or in a ``` fence. Those tags, and white space
      and separators around a call, are not text.
    Everything else is text, and is held back only while it may still become a call.

    Arguments in JSON are passed on as they arrive, once it is certain that this is a call: its name is
    known and its arguments begin. How the text is cut into pushes changes neither text nor calls.
    A character costs constant time; at most 64 Ki characters are held back.

    The parser is a coroutine: straight-line code that waits (`yield`) where the text ends.
    """

    def __init__(self, tool_names: Iterable[str]) -> None:
        self.malformed = False  # the answer ended inside a call, or a call's arguments are not JSON
        names = list(tool_names)
        self._json_names = {json.dumps(n, ensure_ascii=escape): n for n in names for escape in (True, False)}
        self._python_names = {f"{name}{call}": name for name in names for call in ("(", ".call(")}
        self._json_words = _Words(self._json_names)
        self._python_words = _Words(self._python_names)
        self._text = ""
        self._at = 0  # the next character to read
        self._kept = 0  # the first that may yet be delivered as text
        self._over = False
        self._named = False  # a call of a known tool has begun, though nothing of it is delivered yet
        self._pieces: list[Piece] = []
        self._coroutine = self._answer()

    def push(self, text: str) -> list[Piece]:
        """Take more text; returns what is now certain. Nothing more comes of a malformed call's answer."""
        if self.malformed:
            return []
        self._text = self._text[self._kept :] + text
        self._at -= self._kept
        self._kept = 0
        return self._advance()

    def finish(self) -> list[Piece]:
        """The answer is over: returns what was still held back. Sets `malformed`."""
        self._over = True
        return self._advance()

    def _advance(self) -> list[Piece]:
        next(self._coroutine, None)
        pieces, self._pieces = self._pieces, []
        return list(_joined(pieces))

    # Reading

    def _peek(self) -> _WaitFor:
        """The next character, "" at the end of the answer."""
        while self._at == len(self._text) and not self._over:
            yield
        return self._text[self._at : self._at + 1]

    def _run(self, pattern: re.Pattern[str], limit: int) -> _WaitFor:
        """The characters that the pattern (of single characters) takes, at most `limit`."""
        start = self._at - self._kept
        while (yield from self._peek()):
            taken = self._at - self._kept - start
            found = pattern.match(self._text, self._at, self._at + limit - taken)
            if not found or not found[0]:
                break
            self._at = found.end()
        return self._text[self._kept + start : self._at]

    def _word(self, words: _Words) -> _WaitFor:
        """The one of the words that follows. Raises _NotACall as soon as none can."""
        word = ""
        while word not in words.words:
            word += yield from self._peek()
            if self._at == len(self._text) or word not in words.prefixes:
                raise _NotACall
            self._at += 1
        return word

    def _expect(self, character: str) -> _Wait:
        yield from self._run(_SPACES, _MAX_SPACE)
        if (yield from self._peek()) != character:
            raise _NotACall
        self._at += 1

    # The answer

    def _answer(self) -> _Wait:
        after_call = in_list = False
        while (yield from self._peek()) and not self.malformed:
            if not after_call and (plain := _PLAIN.match(self._text, self._at)):
                self._at = plain.end()
                self._release()
                continue
            try:
                in_list = yield from self._call(after_call, in_list)
                after_call = True
            except _NotACall:
                if self._over and self._named:
                    self.malformed = True
                    return
                self._release()
                after_call = in_list = False
            self._named = False

    def _release(self) -> None:
        self._pieces.append(TextPiece(self._text[self._kept : self._at].replace(PYTHON_TAG, "")))
        self._kept = self._at

    def _call(self, after_call: bool, in_list: bool) -> Generator[None, None, bool]:
        """One call with what stands before it. Returns whether it is in a list of Python calls.
        Raises _NotACall."""
        python = in_list
        while True:
            yield from self._run(_GLUE if after_call else _SPACES, _MAX_SPACE)
            if after_call:
                self._kept = self._at
            following = yield from self._peek()
            if following == "<":
                python = (yield from self._word(_TAGS)) == PYTHON_TAG or python
            elif following == "`":
                yield from self._word(_FENCE)
                language = yield from self._run(_FENCE_LANGUAGE, 10)
                if language not in ("", "json", "tool_call"):
                    raise _NotACall
            else:
                break
            if after_call:
                self._kept = self._at
            if self._at - self._kept > _MAX_SPACE:
                raise _NotACall
        if following == "[":
            self._at += 1
            yield from self._run(_SPACES, _MAX_SPACE)
            following = yield from self._peek()
            python = in_list = True
        if following == "{":
            yield from self._json_call()
            return False
        if not python:
            raise _NotACall
        yield from self._python_call()
        return in_list

    # JSON

    def _json_call(self) -> _Wait:
        self._at += 1
        head = _Head()
        seen: set[str] = set()
        while True:
            yield from self._run(_SPACES, _MAX_SPACE)
            key = yield from self._word(_KEYS)
            if key in seen or (key == '"id"' and not seen):
                raise _NotACall
            seen.add(key)
            yield from self._expect(":")
            yield from self._run(_SPACES, _MAX_SPACE)
            opens = (yield from self._peek()) == "{"
            if key == '"function"' and opens:
                self._at += 1
                head.depth = 2
                continue
            if key in ('"parameters"', '"arguments"'):
                if head.name:
                    yield from self._stream_arguments(head)
                    return
                head.arguments = yield from self._held_object()
            else:
                yield from self._describe(head, key)
            yield from self._run(_SPACES, _MAX_SPACE)
            if (yield from self._peek()) != ",":
                break
            self._at += 1
        for _ in range(head.depth):
            yield from self._expect("}")
        if not head.name:
            raise _NotACall
        self._kept = self._at
        self._whole_call(head.name, head.arguments)

    def _describe(self, head: _Head, key: str) -> _Wait:
        """The value of "name", "type", "id", or "function" where it is a string."""
        if key == '"type"':
            yield from self._word(_FUNCTION)
        elif key == '"id"':
            yield from self._string()
        else:
            head.name = self._json_names[(yield from self._word(self._json_words))]
            self._named = True

    def _string(self) -> _Wait:
        """A short string without escapes, which nobody needs."""
        yield from self._expect('"')
        yield from self._run(_QUOTED['"'], _MAX_ID)
        yield from self._expect('"')

    def _held_object(self) -> _WaitFor:
        arguments, fragments, size = JsonObject(), list[str](), 0
        while not arguments.done and (yield from self._peek()):
            fragment, self._at = arguments.push(self._text, self._at)
            fragments.append(fragment)
            size += len(fragment)
            if arguments.failed or size > _MAX_HELD:
                break
        if not arguments.done or size > _MAX_HELD:
            raise _NotACall
        return "".join(fragments)

    def _stream_arguments(self, head: _Head) -> _Wait:
        if (yield from self._peek()) != "{":
            raise _NotACall
        self._pieces.append(CallStart(head.name))
        arguments = JsonObject()
        while not arguments.done and (yield from self._peek()) and not arguments.failed:
            fragment, self._at = arguments.push(self._text, self._at)
            self._kept = self._at
            self._pieces.append(CallInput(fragment))
        if not arguments.done:
            self.malformed = True
            return
        self._pieces.append(CallEnd())
        # The call is complete. What still belongs to its object is dropped if it is there.
        with suppress(_NotACall):
            yield from self._rest_of_object(head.depth)
        self._kept = self._at

    def _rest_of_object(self, depth: int) -> _Wait:
        while depth:
            yield from self._run(_SPACES, _MAX_SPACE)
            self._kept = self._at
            if (yield from self._peek()) == ",":
                self._at += 1
                yield from self._run(_SPACES, _MAX_SPACE)
                yield from self._word(_KEYS)
                yield from self._expect(":")
                yield from self._run(_SPACES, _MAX_SPACE)
                yield from self._string()
            else:
                yield from self._expect("}")
                depth -= 1

    # Python

    def _python_call(self) -> _Wait:
        name = self._python_names[(yield from self._word(self._python_words))]
        self._named = True
        arguments = python_arguments((yield from self._inside_parentheses()))
        if arguments is None:
            raise _NotACall
        self._kept = self._at
        self._whole_call(name, arguments)

    def _inside_parentheses(self) -> _WaitFor:
        parts, size, depth = list[str](), 0, 1
        while size <= _MAX_HELD:
            parts.append((yield from self._run(_PYTHON_RUN, _MAX_HELD)))
            character = yield from self._peek()
            if not character:
                break
            self._at += 1
            if character in _QUOTED:
                if parts[-1][-1:].isalnum():  # r"", b"", f"": not what JSON knows
                    raise _NotACall
                parts.append((yield from self._python_string(character)))
            else:
                depth += 1 if character in "([{" else -1
                if not depth:
                    return "".join(parts)
                parts.append(character)
            size += len(parts[-1]) + len(parts[-2])
        raise _NotACall

    def _python_string(self, quote: str) -> _WaitFor:
        """A string literal behind its first quote. Backslashes that escape nothing come out doubled
        (Python means the same by both, but warns of the one), raw line breaks escaped."""
        parts, size = [quote], 0
        while size <= _MAX_HELD:
            parts.append((yield from self._run(_QUOTED[quote], _MAX_HELD)).replace("\n", "\\n"))
            character = yield from self._peek()
            if not character:
                break
            self._at += 1
            parts.append(character)
            if character == quote:
                return "".join(parts)
            escaped = yield from self._peek()
            self._at += len(escaped)
            parts.append(escaped if escaped in _PYTHON_ESCAPES else f"\\{escaped}")
            size += sum(map(len, parts[-3:]))
        raise _NotACall

    def _whole_call(self, name: str, arguments: str) -> None:
        self._pieces += (CallStart(name), CallInput(arguments), CallEnd())


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Runs of text as one piece, and runs of a call's input; none of them empty."""
    for kind, run in groupby(pieces, type):
        if kind is TextPiece:
            text = "".join(piece.text for piece in run if isinstance(piece, TextPiece))
            if text:
                yield TextPiece(text)
        elif kind is CallInput:
            fragment = "".join(piece.fragment for piece in run if isinstance(piece, CallInput))
            if fragment:
                yield CallInput(fragment)
        else:
            yield from run
