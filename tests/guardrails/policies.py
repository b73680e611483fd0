"""Guardrails of the tests, and what they make of a text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from outcrop.guardrails.filter import Action, Filters, Policy
from outcrop.guardrails.pii import FORMS
from outcrop.guardrails.rules import NamedRule, RegexRule, Rules, TopicRule
from outcrop.guardrails.scanner import WINDOW, Scanner

BLOCKED = "<blocked>"
"""Behind what is let through of a text that is blocked."""

INVESTING = TopicRule(
    "Investment advice",
    ("Advice about managing money and stocks", "Where should I invest my savings?"),
    Action.BLOCK,
)


def pii(action: Action, *types: str) -> Filters:
    return Rules(pii=[NamedRule(type_, action) for type_ in types or sorted(FORMS)]).filters()


def words(*texts: str, action: Action = Action.BLOCK) -> Filters:
    return Rules(words=[NamedRule(text, action) for text in texts]).filters()


def regex(pattern: str, action: Action = Action.ANONYMIZE, name: str = "id") -> Filters:
    return Rules(regexes=[RegexRule(name, pattern, action)]).filters()


POLICIES: dict[str, Filters] = {
    "words": words("forbidden", "two words", "C++", "naïve"),
    "profanity": Rules(profanity=Action.BLOCK).filters(),
    "reported words": words("forbidden", action=Action.NONE),
    "topic": Rules(topics=[INVESTING]).filters(),
    "block email": pii(Action.BLOCK, "EMAIL"),
    "mask all": pii(Action.ANONYMIZE),
    "report phone": pii(Action.NONE, "PHONE"),
    "regex": regex(r"\bID-\d{4,}\b"),
    "block regex": regex(r"(?i)secret\s+project", Action.BLOCK),
    "several": Rules(
        words=[NamedRule("forbidden", Action.BLOCK)],
        pii=[NamedRule("EMAIL", Action.ANONYMIZE), NamedRule("IP_ADDRESS", Action.BLOCK)],
        regexes=[RegexRule("host", r"\b[a-z]+\.example\.com\b", Action.ANONYMIZE)],
        topics=[INVESTING],
    ).filters(),
}

Outcome = tuple[str, list[tuple[Policy, str, str]], bool]
"""What is let through, what was found (policy, name, match), and whether it was blocked."""


def outcome(filters: Filters, text: str, cuts: Sequence[int] = (), window: int = WINDOW) -> Outcome:
    """Of a text that comes in pieces, cut at these places."""
    scanner = Scanner(filters, window=window)
    bounds = [0, *sorted(cuts), len(text)]
    out = "".join(scanner.push(text[start:end]) for start, end in pairwise(bounds))
    out += scanner.finish()
    found = [(each.filter.policy, each.filter.name, each.match) for each in scanner.findings]
    return out + BLOCKED * scanner.blocked, found, scanner.blocked
