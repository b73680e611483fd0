"""A guardrail at work on one request: on what goes to the model, and on the answer while it grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outcrop.api import errors
from outcrop.api.guardrails.assessment import Assessment, action_reasons
from outcrop.api.guardrails.settings import GuardrailSettings
from outcrop.guardrails.filter import Action, Filters
from outcrop.guardrails.scanner import Finding, Scanner


class InputBlocked(Exception):
    """The prompt must not reach the model; the answer is the guardrail's message."""


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """trace: whether the answer tells what was found; full: also what was not. asynchronous: text is let
    through before it is known whether the text after it makes something of it."""

    trace: bool = False
    full: bool = False
    asynchronous: bool = False


def assess(
    settings: GuardrailSettings, filters: Filters, texts: Sequence[str], total: int
) -> tuple[Assessment, list[str]]:
    """Look at whole texts, each by itself, and what becomes of each: masked, or cut before what is to be
    blocked. total: characters there were, looked at or not."""
    began = time.perf_counter()
    findings: list[Finding] = []
    passed = []
    for text in texts:
        scanner = Scanner(filters)
        passed.append(scanner.push(text) + scanner.finish())
        findings += scanner.findings
    guarded = sum(map(len, texts))
    return Assessment(settings, filters, findings, guarded, total, _milliseconds(began)), passed


class Guard:
    """Between a request and its model, and between the model and the answer's text.

    blocked: from now on there is no text but `message`, which has been or is to be said once.
    """

    def __init__(self, settings: GuardrailSettings, options: GuardOptions) -> None:
        """Raises ValidationException for a mask that would come too late."""
        if options.asynchronous and any(each.action is Action.ANONYMIZE for each in settings.output.every):
            raise errors.validation(
                "The guardrail masks sensitive information in answers, which the asynchronous "
                "streamProcessingMode doesn't support. Use the synchronous one, or another guardrail, and "
                "try again."
            )
        self.blocked = False
        self.message = ""
        self._settings = settings
        self._options = options
        self._input: Assessment | None = None
        self._scanner = Scanner(settings.output)
        self._said = True  # whether the message has been
        self._written: list[str] = []  # by the model, as it wrote it
        self._seconds = 0.0

    # -- the input ---------------------------------------------------------------------------------

    def check(self, texts: Sequence[str], total: int) -> list[str]:
        """What the model is to read instead of these texts. Slow for long ones. Raises InputBlocked."""
        self._input, masked = assess(self._settings, self._settings.input, texts, total)
        if self._input.action is Action.BLOCK:
            self._block(self._settings.blocked_input)
            raise InputBlocked
        return masked

    # -- the answer --------------------------------------------------------------------------------

    def push(self, text: str) -> str:
        """Take more of the answer's text; returns what may be said now."""
        if not self.blocked:
            self._written.append(text)
            began = time.perf_counter()
            safe = self._scanner.push(text)
            self._seconds += time.perf_counter() - began
            if self._scanner.blocked:
                self._block(self._settings.blocked_output)
                return ("" if self._options.asynchronous else safe) + self._say()
            return text if self._options.asynchronous else safe
        return self._say()

    def finish(self) -> str:
        """A part of the answer's text is over; returns what is left to say of it."""
        if not self.blocked:
            rest = self._scanner.finish()
            if self._scanner.blocked:
                self._block(self._settings.blocked_output)
            if self._options.asynchronous:
                rest = ""  # it has been said
            return rest + self._say()
        return self._say()

    def _block(self, message: str) -> None:
        self.blocked, self.message, self._said = True, message, False

    def _say(self) -> str:
        if self._said:
            return ""
        self._said = True
        return self.message

    # -- what is told of it ------------------------------------------------------------------------

    @property
    def changed_answer(self) -> bool:
        """Whether the answer is another than the model's."""
        return self.blocked or self._output.action is not Action.NONE

    @property
    def intervened(self) -> bool:
        """Whether anything was blocked or masked."""
        return self.changed_answer or any(each.action is not Action.NONE for each in self._inputs)

    def trace(self) -> dict[str, Any] | None:
        """A GuardrailTraceAssessment, where it is asked for."""
        if not self._options.trace:
            return None
        trace: dict[str, Any] = {}
        inputs, outputs = self._inputs, self._outputs
        for each in inputs:
            trace["inputAssessment"] = {self._settings.id: each.document(full=self._options.full)}
        if outputs:
            trace["modelOutput"] = ["".join(self._written)]
            documents = [each.document(full=self._options.full) for each in outputs]
            trace["outputAssessments"] = {self._settings.id: documents}
        return trace | {"actionReason": action_reasons([*inputs, *outputs])}

    def native_members(self) -> dict[str, Any]:
        """What InvokeModel's answers have besides, and the last chunk of its streams."""
        members: dict[str, Any] = {
            "amazon-bedrock-guardrailAction": "INTERVENED" if self.intervened else "NONE"
        }
        if (trace := self.trace()) is not None:
            renamed: dict[str, Any] = {"actionReason": trace["actionReason"]}
            if "inputAssessment" in trace:
                renamed["input"] = trace["inputAssessment"]
            if "outputAssessments" in trace:
                renamed["modelOutput"] = trace["modelOutput"]
                renamed["outputs"] = [
                    {identifier: document}
                    for identifier, documents in trace["outputAssessments"].items()
                    for document in documents
                ]
            members["amazon-bedrock-trace"] = {"guardrail": renamed}
        return members

    @property
    def _inputs(self) -> list[Assessment]:
        return [] if self._input is None else [self._input]

    @property
    def _outputs(self) -> list[Assessment]:
        """None where the model was not asked."""
        return [self._output] if self._written else []

    @property
    def _output(self) -> Assessment:
        characters = self._scanner.characters
        return Assessment(
            self._settings,
            self._settings.output,
            self._scanner.findings,
            characters,
            characters,
            int(self._seconds * 1000),
        )


def _milliseconds(began: float) -> int:
    return int((time.perf_counter() - began) * 1000)
