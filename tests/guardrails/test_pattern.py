"""Patterns mean what they mean in Python, and their beginnings are those of what they match."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.guardrails.pattern import Beginnings, Pattern, PatternError

PATTERNS = [
    "abc", "a|bc|", "a*b", "a+?b", "(ab){2,3}c?", "[a-c]x", r"[^\da-b]+", r"\bab\b", r"a\Bb", "^a", "c$",
    r"\Aab|b\Z", "(?i)AB", "(?s)a.b", "a.b", "(?m)^b$", "(?:a(?:b(?:c)?)?)+", "((a|b)(c|x)){1,2}", r"\w+\s\w",
    r"[\w.]+@[\w.]+", "(?x) a  b # both", "(?i:A)b", r"\x61\u0062", r"a{2}", "a{,2}b", r"[\]\-^]",
    "(?P<name>ab)c",
]  # fmt: skip
texts = st.text(alphabet="abcxAB1@. \n", max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PATTERNS), texts)
def test_a_match_is_pythons(source: str, text: str) -> None:
    """But for an empty one, and for a line break at the very end, which `$` of RE2 does not pass over."""
    pattern = Pattern(source)
    found = pattern.search(text, 0)
    if text.endswith("\n") and "$" in source:
        return
    wanted = next((each for each in re.finditer(source, text, re.ASCII) if each[0]), None)
    assert (found and found[:2]) == (wanted and wanted.span())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PATTERNS), texts)
def test_the_beginnings_of_a_match_are_undecided(source: str, text: str) -> None:
    pattern = Pattern(source)
    horizon = Beginnings([pattern])
    if (found := pattern.search(text, 0)) is not None:
        begin, end = found[:2]
        for cut in range(begin + 1, end + 1):
            assert horizon.undecided(text[:cut], 0) <= begin


@pytest.mark.parametrize(("source", "text", "index"), [
    ("abc", "xab", 1), ("abc", "xabd", 4), ("abc", "", 0), (r"\bID-\d+", "my I", 3), (r"\bID-\d+", "myI", 3),
    ("a{3}b", "caa", 1), ("(?:ab|cd)+e", "xabcd", 1), ("a|b", "c", 1), ("a*", "baa", 1),
])  # fmt: skip
def test_what_is_undecided(source: str, text: str, index: int) -> None:
    assert Beginnings([Pattern(source)]).undecided(text, 0) == index


@pytest.mark.parametrize(("source", "says"), [
    ("(?=a)b", "lookahead"), ("(?<!a)b", "lookbehind"), (r"(a)\1", "references"),
    ("(?P<x>a)(?P=x)", "references"),
    ("(", "unterminated"), ("[", "unterminated"), ("a{2,1}", "greater"), ("a++", "possessive"),
    ("(?>a)", "atomic"), ("x{1001}", "repetition size"), ("(a" * 400 + ")" * 400, "deep"),
    ("(?:.{999}.{999}.{999}){1}", "too large"), ("(a)(?(1)b|c)", "conditions"), ("*", "nothing to repeat"),
])  # fmt: skip
def test_patterns_that_cannot_be_used(source: str, says: str) -> None:
    with pytest.raises(PatternError, match=says):
        Pattern(source)


def test_a_pattern_as_long_as_it_may_be() -> None:
    pattern = Pattern("a" * 500)
    assert pattern.search("b" + "a" * 600, 0) == (1, 501, 1, 501)
    assert Beginnings([pattern] * 30).undecided("b" + "a" * 499, 0) == 1


@pytest.mark.timeout(60)
def test_large_patterns_are_not_compiled_together() -> None:
    """Thirty of these in one automaton would take minutes, in which nothing else runs."""
    pattern = Pattern("a{1000}" * 7)
    assert Beginnings([pattern] * 30).undecided("b" + "a" * 10, 0) == 1
