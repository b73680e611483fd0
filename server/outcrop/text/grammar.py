"""Grammars that an answer must follow: JSON Schema and llguidance's own language, over the model's tokens."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from outcrop.text.base import Tokenizer

MAX_GRAMMAR_BYTES = 64 * 1024
"""Of one grammar, so that compiling one takes about 100 ms at most."""

_MAX_WIDTH = 1000
"""Entries of one object or array of a schema: the time to compile an object's properties is quadratic."""

_MAX_MULTIPLE = 20_000
"""Of what `multipleOf` asks for, all together: its automaton has a state for every remainder, and building
it is the one thing that llguidance's limits do not count."""

JSON_OPTIONS: Mapping[str, Any] = {"whitespace_flexible": False, "whitespace_pattern": " ?"}
"""How JSON is written. A space where JSON allows white space is what models write unasked; more would let
one fill its answer with blanks. The value of "x-guidance" for a schema inside a larger grammar."""

_MULTIPLE_OF = re.compile(r'"multipleOf\\*"\s*:\s*\+?(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)')

# A grammar within MAX_GRAMMAR_BYTES can still ask for much: products of alternatives, counted repetition.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=200_000,
    step_max_items=20_000,
    max_grammar_size=20_000,
    max_lexer_states=50_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)


class GrammarError(ValueError):
    """The grammar or schema cannot be used; the message tells the client why."""


def json_schema_grammar(schema: Mapping[str, object] | str) -> str:
    """The grammar of JSON texts valid under a schema (an object, or its JSON). Raises GrammarError if
    there is no schema to be read; whether its keywords are supported, `GrammarCompiler.check` says."""
    return json.dumps({"grammars": [{"json_schema": _read_schema(schema)}]})


def json_schema_rule(schema: Mapping[str, object] | str) -> str:
    """The same as part of a grammar in llguidance's Lark: what to write in place of a symbol."""
    return "%json " + json.dumps(_read_schema(schema))


def _read_schema(schema: Mapping[str, object] | str) -> dict[str, Any]:
    """A copy of the schema, found good and given JSON_OPTIONS."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        _check_bounds(text)
        parsed = json.loads(text)
        _check_width(parsed)
    except GrammarError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise GrammarError(f"The schema is not valid JSON: {error}") from None
    if isinstance(parsed, bool):
        parsed = {} if parsed else {"enum": []}
    if not isinstance(parsed, dict):
        raise GrammarError("The schema is not a JSON object")
    return {**parsed, "x-guidance": dict(JSON_OPTIONS)}


_MAX_DIGITS = 32
"""In a row, of a number. JSON sets no bound, and a weak model that begins to repeat one would not stop."""


class _Digits:
    """How many digits in a row the JSON text ends with, outside of its strings."""

    def __init__(self) -> None:
        self.run = 0
        self._in_string = self._escaped = False

    def push(self, text: bytes) -> None:
        for byte in text:
            if self._in_string:
                self._in_string = byte != ord('"') or self._escaped
                self._escaped = byte == ord("\\") and not self._escaped
            else:
                self._in_string = byte == ord('"')
                self.run = self.run + 1 if 0x30 <= byte <= 0x39 else 0


class GrammarMatcher:
    """One answer's progress through its grammar. Not thread-safe."""

    def __init__(self, matcher: LLMatcher, vocabulary: _Vocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._words = vocabulary.words
        self._digits = _Digits()

    def fill(self, mask: npt.NDArray[np.int32]) -> None:
        """Write which tokens may come next into a row of int32 words: bit i of word w is token 32 w + i.
        Where the grammar may end, the tokenizer's end-of-turn tokens may come. Words beyond the
        tokenizer's vocabulary (models pad theirs) become 0."""
        mask[self._words :] = 0
        row = mask[: self._words]
        if row.size < self._words or not row.flags.c_contiguous:
            raise ValueError(f"the mask needs {self._words} words of contiguous memory")
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        if self._digits.run >= _MAX_DIGITS:
            without = row & ~self._vocabulary.digits
            if without.any():  # else the grammar itself asks for more
                row[:] = without

    def accept(self, token_id: int) -> bool:
        """Move past a token; False, for good, if the grammar does not allow it here."""
        accepted = self._matcher.consume_token(token_id)
        if accepted:
            self._digits.push(self._vocabulary.tokens[token_id])
        return accepted

    @property
    def finished(self) -> bool:
        """The answer is whole and nothing can follow it but the end of turn."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def error(self) -> str:
        """Why the matcher can go no further (a token it did not allow, or a limit on its work), or ""."""
        return _first_line(self._matcher.get_error())


class GrammarCompiler:
    """Compiles grammars for one tokenizer. Thread-safe, and other Python threads run meanwhile.

    Making one takes about half a second for a vocabulary of 128k tokens. Raises GrammarError if the
    tokenizer has no end-of-turn token, with which an answer could end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.eos_ids:
            raise GrammarError("The model's tokenizer has no end-of-turn token")
        self.vocab_size = tokenizer.vocab_size
        self._vocabulary = _Vocabulary(tokenizer)
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(self._vocabulary),
            n_vocab=tokenizer.vocab_size,
            eos_token=list(tokenizer.eos_ids),
        )

    def check(self, grammar: str) -> None:
        """Raises GrammarError if the grammar cannot be compiled within the limits, or admits no answer."""
        matcher = self.matcher(grammar)
        matcher.fill(np.empty(self._vocabulary.words, dtype=np.int32))
        if matcher.error:
            raise GrammarError(matcher.error)

    def matcher(self, grammar: str) -> GrammarMatcher:
        """A matcher at the grammar's start. Raises GrammarError."""
        _check_bounds(grammar)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise GrammarError(_first_line(matcher.get_error()))
        return GrammarMatcher(matcher, self._vocabulary)


class _Vocabulary:
    """A tokenizer as llguidance wants to see it. Control tokens go by their names, as in its grammars.

    words: of a mask. digits: the mask of the tokens that begin with a digit.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.eos_token_id = tokenizer.eos_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
        self.special_token_ids = list(tokenizer.special_tokens.values())
        for name, token_id in tokenizer.special_tokens.items():
            self.tokens[token_id] = name.encode()
        self.words = -(-tokenizer.vocab_size // 32)
        begins = np.zeros(self.words * 32, dtype=np.uint8)
        begins[[index for index, token in enumerate(self.tokens) if token[:1].isdigit()]] = 1
        self.digits = np.packbits(begins, bitorder="little").view(np.int32)

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _check_bounds(grammar: str) -> None:
    """Refuse what would take long to compile, from its text: it holds for a schema, whatever surrounds it."""
    if len(grammar) > MAX_GRAMMAR_BYTES:
        raise GrammarError(
            f"The grammar or schema has {len(grammar)} characters; at most {MAX_GRAMMAR_BYTES} are allowed"
        )
    try:
        grammar.encode()
    except UnicodeEncodeError:
        raise GrammarError("The grammar or schema holds half a surrogate pair") from None
    divisors = [Decimal(value) for value in set(_MULTIPLE_OF.findall(grammar))]
    if any(abs(value.adjusted()) > 9 for value in divisors if value):
        raise GrammarError("The value of multipleOf is too large or too small")
    scale = max((10 ** max(-int(value.normalize().as_tuple().exponent), 0) for value in divisors), default=1)
    if max(scale, math.lcm(*(int(abs(value) * scale) or 1 for value in divisors))) > _MAX_MULTIPLE:
        raise GrammarError(
            f"The values of multipleOf have no common multiple within {_MAX_MULTIPLE} times their last digit"
        )


def _check_width(value: object) -> None:
    if isinstance(value, dict | list):
        items = list(value.values()) if isinstance(value, dict) else value
        # Plain values, as of an enum, are cheap.
        if len(items) > _MAX_WIDTH and any(isinstance(item, dict | list | bool) for item in items):
            raise GrammarError(
                f"The schema lists {len(value)} things in one place; at most {_MAX_WIDTH} are allowed"
            )
        for item in items:
            _check_width(item)


def _first_line(message: str) -> str:
    """llguidance's messages, without the state it appends and with words for its bare codes."""
    lines = [line.strip() for line in message.splitlines() if "non-verbose" not in line]
    text = " ".join(line for line in lines if line and set(line) != {"^"})
    return "The grammar admits no answer" if text.startswith("NoExtension") else text
