"""What a guardrail found in a text, in the shapes of `bedrock-runtime`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from outcrop.api.guardrails.settings import GuardrailSettings
from outcrop.guardrails.filter import Action, Filter, Filters, Policy
from outcrop.guardrails.scanner import Finding

_ACTIONS = {Action.BLOCK: "BLOCKED", Action.ANONYMIZE: "ANONYMIZED", Action.NONE: "NONE"}
_UNIT = 1000  # characters of a text unit, by which the service bills


@dataclass(frozen=True, slots=True)
class Assessment:
    """One look at texts. guarded, total: characters that were looked at, and that there were.
    milliseconds: what it took."""

    settings: GuardrailSettings
    filters: Filters
    findings: Sequence[Finding]
    guarded: int
    total: int
    milliseconds: int

    @property
    def action(self) -> Action:
        """The strongest that was taken."""
        taken = {finding.filter.action for finding in self.findings}
        return next((each for each in (Action.BLOCK, Action.ANONYMIZE) if each in taken), Action.NONE)

    @property
    def reason(self) -> str:
        """In the service's words."""
        return {
            Action.BLOCK: "Guardrail blocked.",
            Action.ANONYMIZE: "Guardrail masked.",
            Action.NONE: "No action.",
        }[self.action]

    @property
    def usage(self) -> dict[str, int]:
        """Text units of each policy that was applied. Regular expressions are free of charge there, as they
        are here."""
        units = math.ceil(self.guarded / _UNIT)
        policies = self.filters.policies
        words = policies & {Policy.WORD, Policy.MANAGED_WORD}
        return {
            "topicPolicyUnits": units * (Policy.TOPIC in policies),
            "contentPolicyUnits": 0,
            "wordPolicyUnits": units * bool(words),
            "sensitiveInformationPolicyUnits": units * (Policy.PII in policies),
            "sensitiveInformationPolicyFreeUnits": units * (Policy.REGEX in policies),
            "contextualGroundingPolicyUnits": 0,
            "contentPolicyImageUnits": 0,
            "automatedReasoningPolicyUnits": 0,
            "automatedReasoningPolicies": 0,
        }

    @property
    def coverage(self) -> dict[str, Any]:
        return {"textCharacters": {"guarded": self.guarded, "total": self.total}}

    def document(self, *, full: bool) -> dict[str, Any]:
        """A GuardrailAssessment. full: topics and types that were not found are told, too."""
        return {
            **self._policies(full=full),
            "invocationMetrics": {
                "guardrailProcessingLatency": self.milliseconds,
                "usage": self.usage,
                "guardrailCoverage": self.coverage,
            },
            "appliedGuardrailDetails": {
                "guardrailId": self.settings.id,
                "guardrailVersion": self.settings.version,
                "guardrailArn": self.settings.arn,
                "guardrailOrigin": ["REQUEST"],
                "guardrailOwnership": "SELF",
            },
        }

    def _policies(self, *, full: bool) -> dict[str, Any]:
        topics = list(self._topics(full=full))
        words, lists = list(self._of(Policy.WORD)), list(self._of(Policy.MANAGED_WORD))
        entities, regexes = list(self._entities(full=full)), list(self._of(Policy.REGEX))
        found: dict[str, Any] = {}
        if topics:
            found["topicPolicy"] = {"topics": topics}
        if words or lists:
            found["wordPolicy"] = {"customWords": words, "managedWordLists": lists}
        if entities or regexes:
            found["sensitiveInformationPolicy"] = {"piiEntities": entities, "regexes": regexes}
        return found

    def _topics(self, *, full: bool) -> Iterator[dict[str, Any]]:
        """A topic is told once, however often it came up."""
        found = {each.filter for each in self.findings if each.filter.policy is Policy.TOPIC}
        for filter_ in self.filters.every:
            if filter_.policy is Policy.TOPIC and (full or filter_ in found):
                yield {"name": filter_.name, "type": "DENY", **_outcome(filter_, filter_ in found)}

    def _entities(self, *, full: bool) -> Iterator[dict[str, Any]]:
        yield from self._of(Policy.PII)
        if full:
            found = {each.filter for each in self.findings}
            for filter_ in self.filters.every:
                if filter_.policy is Policy.PII and filter_ not in found:
                    yield {"match": "", "type": filter_.name, **_outcome(filter_, detected=False)}

    def _of(self, policy: Policy) -> Iterator[dict[str, Any]]:
        for finding in self.findings:
            filter_ = finding.filter
            if filter_.policy is policy:
                yield {"match": finding.match, **_described(filter_), **_outcome(filter_, detected=True)}


def _described(filter_: Filter) -> dict[str, str]:
    match filter_.policy:
        case Policy.REGEX:
            return {"name": filter_.name, "regex": filter_.regex}
        case Policy.PII | Policy.MANAGED_WORD:
            return {"type": filter_.name}
        case _:
            return {}


def _outcome(filter_: Filter, detected: bool) -> dict[str, Any]:
    return {"action": _ACTIONS[filter_.action] if detected else "NONE", "detected": detected}


def action_reasons(assessments: Iterable[Assessment]) -> str:
    """Of input and output, a line each, as the service has them."""
    return "\n".join(each.reason for each in assessments)
