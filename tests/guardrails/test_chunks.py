"""How a text is cut into pieces changes nothing: neither what comes out of a guardrail nor what it found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.guardrails.filter import Action, Filters
from outcrop.guardrails.rules import NamedRule, RegexRule, Rules
from outcrop.guardrails.scanner import Scanner

from .policies import POLICIES, outcome, regex
from .test_table import TABLE

MANY = Rules(
    words=[NamedRule(text, Action.NONE) for text in ("a b", "b a b", "ab+", "b")],
    pii=[NamedRule("EMAIL", Action.ANONYMIZE)],
    regexes=[
        RegexRule("one", r"\ba+b\b", Action.ANONYMIZE),
        RegexRule("two", r"(?:ab|b c)*c", Action.ANONYMIZE),
        RegexRule("three", r"^b|c$|a{2,3}?", Action.ANONYMIZE),
        RegexRule("four", r"b(?P<value>a+)b", Action.ANONYMIZE),
        RegexRule("five", r"[^abc ]{2}|a\Bb", Action.NONE),
    ],
).filters()

texts = st.lists(
    st.sampled_from(
        ["a", "b", "c", " ", "ab", "é", "+", "\n", ". ", "stocks ", "money ", "a@b.cd", "1", "🖕"]
    )
    | st.sampled_from([text for _, text, _, _ in TABLE]),
    max_size=25,
).map("".join)
filters = st.sampled_from([MANY, *POLICIES.values()])


@settings(max_examples=120, deadline=None)
@given(filters, texts, st.lists(st.integers(0, 10_000), max_size=30), st.sampled_from([1, 2, 7, 40, 4096]))
def test_cutting_changes_nothing(chosen: Filters, text: str, cuts: list[int], window: int) -> None:
    places = [cut % (len(text) + 1) for cut in cuts]
    assert outcome(chosen, text, places, window) == outcome(chosen, text, (), window)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_what_blocks_is_never_let_through(text: str) -> None:
    """Not even its beginning: what comes out is what stands before it."""
    scanner, out = Scanner(POLICIES["block email"]), ""
    for character in text:
        out += scanner.push(character)
    out += scanner.finish()
    if scanner.blocked:
        (finding,) = scanner.findings
        assert text.startswith(out + finding.match)
    else:
        assert out == text


@pytest.mark.parametrize("pattern", [r"x+y", r"(?s)BEGIN.*END", r"(x|xx)+$"])
def test_what_is_held_back_is_bounded(pattern: str) -> None:
    scanner, text = Scanner(regex(pattern), window=100), "BEGIN" + "x" * 5000
    out = ""
    for index, character in enumerate(text):
        out += scanner.push(character)
        assert len(out) >= index - 100 or scanner.findings
    assert scanner.finish() is not None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+b", r"(a*)*b", r"(.*a){12}"])
def test_no_pattern_holds_up_the_server(pattern: str) -> None:
    """A backtracking engine would take longer than the universe."""
    text = "a" * 20_000 + "!"
    scanner = Scanner(regex(pattern, Action.NONE))
    assert scanner.push(text) + scanner.finish() == text
