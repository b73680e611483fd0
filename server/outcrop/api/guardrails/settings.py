"""A guardrail's configuration: what of it this server cannot honour, and the rules that it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from outcrop.api import errors
from outcrop.api.guardrails.shapes import Blocking, Masking, UpdateGuardrailRequest
from outcrop.guardrails.filter import Action, Filters
from outcrop.guardrails.pattern import Pattern, PatternError
from outcrop.guardrails.pii import FORMS
from outcrop.guardrails.rules import NamedRule, RegexRule, Rules, TopicRule

Direction = Literal["input", "output"]

_NEED_A_MODEL = (
    ("content_policy_config", "contentPolicyConfig"),
    ("contextual_grounding_policy_config", "contextualGroundingPolicyConfig"),
    ("automated_reasoning_policy_config", "automatedReasoningPolicyConfig"),
)


@dataclass(frozen=True, slots=True)
class GuardrailSettings:
    """What is done with texts. id, arn, version: of the guardrail."""

    id: str
    arn: str
    version: str
    blocked_input: str
    blocked_output: str
    input: Filters
    output: Filters

    @classmethod
    def of(cls, identifier: str, arn: str, version: str, fields: dict[str, Any]) -> GuardrailSettings:
        """From fields that `refuse_unsupported` has let through, as JSON has them."""
        config = msgspec.convert(fields, UpdateGuardrailRequest)
        input_, output = _rules(config, "input"), _rules(config, "output")
        filters = input_.filters()
        return cls(
            identifier,
            arn,
            version,
            config.blocked_input_messaging or "",
            config.blocked_outputs_messaging or "",
            filters,
            filters if output == input_ else output.filters(),
        )


def refuse_unsupported(config: UpdateGuardrailRequest) -> None:
    """Raises ValidationException for what this server could not do, by its name, for patterns that are none,
    and for a guardrail without any policy. Slow for large patterns."""
    for attribute, name in _NEED_A_MODEL:
        if getattr(config, attribute) is not None:
            raise errors.validation(
                f"The {name} needs a model that this server doesn't have. Remove {name} and try again."
            )
    if config.cross_region_config is not None:
        raise errors.validation(
            "This server is in one place: crossRegionConfig can't be honoured. Remove it and try again."
        )
    if config.kms_key_id is not None:
        raise errors.validation(
            "This server doesn't encrypt guardrails with keys of KMS. Remove kmsKeyId and try again."
        )
    topics = config.topic_policy_config
    tier = topics.tier_config.tier_name if topics and topics.tier_config else None
    if tier not in (None, "CLASSIC"):
        raise errors.validation(
            f"The tier {tier} at topicPolicyConfig.tierConfig.tierName needs a model that this server "
            "doesn't have. Use CLASSIC, or remove tierConfig, and try again."
        )
    _check_sensitive_information(config)
    if not any(_filters(config)):
        raise errors.validation(
            "A guardrail must have at least one topic, word, word list, PII type or regex. "
            "Add one and try again."
        )


def _check_sensitive_information(config: UpdateGuardrailRequest) -> None:
    policy = config.sensitive_information_policy_config
    path = "sensitiveInformationPolicyConfig"
    for index, entity in enumerate((policy.pii_entities_config if policy else None) or ()):
        if entity.type not in FORMS:
            raise errors.validation(
                f"The PII type {entity.type} at {path}.piiEntitiesConfig.{index}.type needs a model that "
                "this server doesn't have: it finds the types that have a form. Remove it and try again."
            )
    for index, regex in enumerate((policy.regexes_config if policy else None) or ()):
        try:
            Pattern(regex.pattern or "")
        except PatternError as error:
            raise errors.validation(
                f"The regex {regex.name} at {path}.regexesConfig.{index}.pattern can't be used: {error}. "
                "Change the pattern and try again."
            ) from None


def _filters(config: UpdateGuardrailRequest) -> Iterator[object]:
    """Everything that the configuration looks for."""
    topics, words = config.topic_policy_config, config.word_policy_config
    information = config.sensitive_information_policy_config
    if topics is not None:
        yield from topics.topics_config or ()
    if words is not None:
        yield from (*(words.words_config or ()), *(words.managed_word_lists_config or ()))
    if information is not None:
        yield from (*(information.pii_entities_config or ()), *(information.regexes_config or ()))


def _rules(config: UpdateGuardrailRequest, direction: Direction) -> Rules:
    """Those of one direction that are not switched off in it."""
    topics, words = config.topic_policy_config, config.word_policy_config
    information = config.sensitive_information_policy_config
    lists = [
        action
        for each in (words.managed_word_lists_config if words else None) or ()
        if (action := _action(each, direction)) is not None
    ]
    return Rules(
        topics=[
            TopicRule(each.name or "", (each.definition or "", *(each.examples or ())), action)
            for each in (topics.topics_config if topics else None) or ()
            if (action := _action(each, direction)) is not None
        ],
        words=[
            NamedRule(each.text or "", action)
            for each in (words.words_config if words else None) or ()
            if (action := _action(each, direction)) is not None
        ],
        profanity=lists[0] if lists else None,
        pii=[
            NamedRule(each.type or "", action)
            for each in (information.pii_entities_config if information else None) or ()
            if (action := _action(each, direction)) is not None
        ],
        regexes=[
            RegexRule(each.name or "", each.pattern or "", action)
            for each in (information.regexes_config if information else None) or ()
            if (action := _action(each, direction)) is not None
        ],
    )


def _action(given: Blocking | Masking, direction: Direction) -> Action | None:
    """What a filter does in a direction; None where it is switched off."""
    if getattr(given, f"{direction}_enabled") is False:
        return None
    general = given.action if isinstance(given, Masking) else "BLOCK"
    return Action(str(getattr(given, f"{direction}_action") or general))
