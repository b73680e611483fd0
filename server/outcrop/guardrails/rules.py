"""What a guardrail's configuration says, as filters with their finders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from outcrop.guardrails import pii
from outcrop.guardrails.filter import Action, Filter, Filters, Finder, Horizon, Policy
from outcrop.guardrails.pattern import Beginnings, Pattern
from outcrop.guardrails.phrases import Phrases
from outcrop.guardrails.pii import PatternFinder
from outcrop.guardrails.topics import Topic, TopicFinder, TopicHorizon

PROFANITY = "PROFANITY"


@dataclass(frozen=True, slots=True)
class TopicRule:
    """texts: the definition and the examples."""

    name: str
    texts: Sequence[str]
    action: Action


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A word or phrase, or a type of personal information."""

    name: str
    action: Action


@dataclass(frozen=True, slots=True)
class RegexRule:
    name: str
    regex: str
    action: Action


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of one direction, input or output. profanity: what is done about it, None to let it be."""

    topics: Sequence[TopicRule] = ()
    words: Sequence[NamedRule] = ()
    profanity: Action | None = None
    pii: Sequence[NamedRule] = ()
    regexes: Sequence[RegexRule] = ()

    def filters(self) -> Filters:
        """Raises PatternError. pii: of types that have a form."""
        topics = [Topic(Filter(Policy.TOPIC, rule.name, rule.action), rule.texts) for rule in self.topics]
        phrases: dict[Filter, Sequence[str]] = {
            Filter(Policy.WORD, rule.name, rule.action): (rule.name,) for rule in self.words
        }
        if self.profanity is not None:
            phrases[Filter(Policy.MANAGED_WORD, PROFANITY, self.profanity)] = profanity()
        finders: list[Finder] = [TopicFinder(topic) for topic in topics]
        horizons: list[Horizon] = [TopicHorizon(topics)] if topics else []
        if phrases:
            tree = Phrases(phrases)
            finders.append(tree)
            horizons.append(tree)
        every = [*(topic.filter for topic in topics), *phrases]
        compiled: list[Pattern] = []
        for rule in self.pii:
            filter_ = Filter(Policy.PII, rule.name, rule.action)
            every.append(filter_)
            for pattern, check in pii.patterns(rule.name):
                finders.append(PatternFinder(filter_, pattern, check))
                compiled.append(pattern)
        for own in self.regexes:
            filter_ = Filter(Policy.REGEX, own.name, own.action, own.regex)
            every.append(filter_)
            pattern = Pattern(own.regex)
            finders.append(PatternFinder(filter_, pattern))
            compiled.append(pattern)
        if compiled:
            horizons.append(Beginnings(compiled))
        return Filters(tuple(every), tuple(finders), tuple(horizons))


@cache
def profanity() -> tuple[str, ...]:
    """The managed list; the file says where it is from."""
    text = resources.files(__package__ or "").joinpath("profanity.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
