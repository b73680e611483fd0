"""Stop strings, against a model that looks at the whole text every time."""

from __future__ import annotations

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outcrop.text.stop import StopMatcher

LETTERS = st.text("ab", min_size=1, max_size=8)


def first_match(text: str, sequences: list[str]) -> str | None:
    """The stop string that is complete first; of those that end together, the longest."""
    for end in range(1, len(text) + 1):
        ending_here = [s for s in sequences if text[:end].endswith(s)]
        if ending_here:
            return max(ending_here, key=len)
    return None


def held_back(text: str, sequences: list[str]) -> int:
    """The length of the longest suffix of text that begins a stop string."""
    lengths = (n for n in range(len(text) + 1) if any(s.startswith(text[len(text) - n :]) for s in sequences))
    return max(lengths, default=0)


class Stream(RuleBasedStateMachine):
    finished = False

    @initialize(sequences=st.lists(LETTERS, max_size=5))
    def start(self, sequences: list[str]) -> None:
        self.sequences = sequences
        self.matcher = StopMatcher(sequences)
        self.received = self.emitted = ""
        self.finished = False

    @precondition(lambda self: not self.finished)
    @rule(text=st.text("abc", max_size=12))
    def push(self, text: str) -> None:
        self.received += text
        self.emitted += self.matcher.push(text)

    @precondition(lambda self: self.finished)
    @rule(sequences=st.lists(LETTERS, max_size=5))
    def start_again(self, sequences: list[str]) -> None:
        self.start(sequences)

    @precondition(lambda self: not self.finished)
    @rule()
    def finish(self) -> None:
        self.emitted += self.matcher.finish()
        self.finished = True

    @invariant()
    def agrees_with_the_model(self) -> None:
        match = first_match(self.received, self.sequences)
        assert self.matcher.matched == match
        if match is not None:
            ends = self.received.index(match) + len(match)
            assert self.emitted == self.received[: ends - len(match)]
        elif self.finished:
            assert self.emitted == self.received
        else:
            assert (
                self.emitted == self.received[: len(self.received) - held_back(self.received, self.sequences)]
            )


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=examples(300), stateful_step_count=12)


@pytest.mark.parametrize(
    ("sequences", "text", "emitted", "matched"),
    [
        (["abcd", "bc"], "xabcd", "xa", "bc"),
        (["bc", "abc"], "xabc", "x", "abc"),
        (["ab", "abc"], "xabc", "x", "ab"),
        (["\n\nHuman:"], "Hi.\n\nHuman: no", "Hi.", "\n\nHuman:"),
        (["aab"], "aaab", "a", "aab"),
        (["aabaaab", "aac"], "aabaaac", "aaba", "aac"),
        (["😀"], "a😀b", "a", "😀"),
        (["nothing"], "not a thing", "not a thing", None),
        ([], "anything", "anything", None),
    ],
)
def test_which_match_counts(sequences: list[str], text: str, emitted: str, matched: str | None) -> None:
    for size in (1, 2, len(text)):
        matcher = StopMatcher(sequences)
        out = "".join(matcher.push(text[i : i + size]) for i in range(0, len(text), size)) + matcher.finish()
        assert (out, matcher.matched) == (emitted, matched)


def test_nothing_follows_a_match() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.push("go STOP and more") == "go "
    assert matcher.push("still more") == ""
    assert matcher.finish() == ""


def test_2500_stop_strings() -> None:
    sequences = [f"<end of part {i:04}>" for i in range(2500)]
    matcher = StopMatcher(sequences)
    text = "<end of part <end of part 24" * 1000
    assert "".join(matcher.push(character) for character in text) == text.removesuffix("<end of part 24")
    assert matcher.push("x00>") == "<end of part 24x00>"
    assert matcher.push("<end of part 2500>") == "<end of part 2500>"
    assert matcher.push("<end of part 2499>") == ""
    assert matcher.matched == "<end of part 2499>"


@given(text=st.text(), stop=st.text(min_size=1))
def test_any_characters(text: str, stop: str) -> None:
    matcher = StopMatcher([stop])
    before, found, _ = text.partition(stop)
    assert matcher.push(text) + matcher.finish() == before
    assert matcher.matched == (stop if found else None)


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        StopMatcher(["a", ""])
