"""Shapes of guardrails in requests of the control plane."""

from __future__ import annotations

import re
from typing import Annotated

from outcrop.api.bedrock.members import CLIENT_TOKEN, KMS_KEY_ID, Tags
from outcrop.api.bedrock.parameters import PageQuery
from outcrop.api.shapes import Must, Shape

KIND = "guardrail"
VERSION_KIND = "guardrail-version"
DRAFT = "DRAFT"

_ARN = r"arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}"
_NAME = Must(required=True, size=(1, 50), pattern=re.compile("[0-9a-zA-Z-_]+"))
_DESCRIPTION = Must(size=(1, 200))
_MESSAGING = Must(required=True, size=(1, 500))
_IDENTIFIER = Must(size=(0, 2048), pattern=re.compile(rf"(([a-z0-9]+)|({_ARN}:guardrail/[a-z0-9]+))"))
_VERSION = Must(pattern=re.compile("(([1-9][0-9]{0,7})|(DRAFT))"))
_NUMBER = Must(pattern=re.compile("[1-9][0-9]{0,7}"))
_BLOCK = Must(one_of=("BLOCK", "NONE"))
_ACTIONS = ("BLOCK", "ANONYMIZE", "NONE")
_MASK = Must(one_of=_ACTIONS)
_TIER = Must(required=True, one_of=("CLASSIC", "STANDARD"))
_STRENGTH = Must(required=True, one_of=("NONE", "LOW", "MEDIUM", "HIGH"))
_MODALITIES = Must(size=(1, 2))
_MODALITY = Must(one_of=("TEXT", "IMAGE"))
_PROFILE = re.compile(
    rf"[a-z0-9-]+[.]{{1}}guardrail[.]{{1}}v[0-9:]+"
    rf"|{_ARN}:guardrail-profile/[a-z0-9-]+[.]{{1}}guardrail[.]{{1}}v[0-9:]+"
)

PII_TYPES = (
    "ADDRESS", "AGE", "AWS_ACCESS_KEY", "AWS_SECRET_KEY", "CA_HEALTH_NUMBER", "CA_SOCIAL_INSURANCE_NUMBER",
    "CREDIT_DEBIT_CARD_CVV", "CREDIT_DEBIT_CARD_EXPIRY", "CREDIT_DEBIT_CARD_NUMBER", "DRIVER_ID", "EMAIL",
    "INTERNATIONAL_BANK_ACCOUNT_NUMBER", "IP_ADDRESS", "LICENSE_PLATE", "MAC_ADDRESS", "NAME", "PASSWORD",
    "PHONE", "PIN", "SWIFT_CODE", "UK_NATIONAL_HEALTH_SERVICE_NUMBER", "UK_NATIONAL_INSURANCE_NUMBER",
    "UK_UNIQUE_TAXPAYER_REFERENCE_NUMBER", "URL", "USERNAME", "US_BANK_ACCOUNT_NUMBER",
    "US_BANK_ROUTING_NUMBER", "US_INDIVIDUAL_TAX_IDENTIFICATION_NUMBER", "US_PASSPORT_NUMBER",
    "US_SOCIAL_SECURITY_NUMBER", "VEHICLE_IDENTIFICATION_NUMBER",
)  # fmt: skip


class Blocking(Shape):
    """What a filter that cannot mask does in each direction."""

    input_action: Annotated[str | None, _BLOCK] = None
    output_action: Annotated[str | None, _BLOCK] = None
    input_enabled: bool | None = None
    output_enabled: bool | None = None


class Masking(Shape):
    """What a filter that can mask does. input_action, output_action: instead of `action`."""

    action: Annotated[str | None, Must(required=True, one_of=_ACTIONS)] = None
    input_action: Annotated[str | None, _MASK] = None
    output_action: Annotated[str | None, _MASK] = None
    input_enabled: bool | None = None
    output_enabled: bool | None = None


class TopicConfig(Blocking):
    name: Annotated[
        str | None, Must(required=True, size=(1, 100), pattern=re.compile("[0-9a-zA-Z-_ !?.]+"))
    ] = None
    definition: Annotated[str | None, Must(required=True, size=(1, 200))] = None
    examples: Annotated[list[Annotated[str, Must(size=(1, 100))]] | None, Must(size=(0, 5))] = None
    type: Annotated[str | None, Must(required=True, one_of=("DENY",))] = None


class TierConfig(Shape):
    tier_name: Annotated[str | None, _TIER] = None


class TopicPolicyConfig(Shape):
    topics_config: Annotated[list[TopicConfig] | None, Must(required=True, size=(1, 30))] = None
    tier_config: TierConfig | None = None


class WordConfig(Blocking):
    text: Annotated[str | None, Must(required=True, size=(1, 100))] = None


class ManagedWordsConfig(Blocking):
    type: Annotated[str | None, Must(required=True, one_of=("PROFANITY",))] = None


class WordPolicyConfig(Shape):
    words_config: Annotated[list[WordConfig] | None, Must(size=(1, 10_000))] = None
    managed_word_lists_config: list[ManagedWordsConfig] | None = None


class PiiEntityConfig(Masking):
    type: Annotated[str | None, Must(required=True, one_of=PII_TYPES)] = None


class RegexConfig(Masking):
    name: Annotated[str | None, Must(required=True, size=(1, 100))] = None
    description: Annotated[str | None, Must(size=(1, 1000))] = None
    pattern: Annotated[str | None, Must(required=True, size=(1, 500))] = None


class SensitiveInformationPolicyConfig(Shape):
    pii_entities_config: Annotated[list[PiiEntityConfig] | None, Must(size=(1, None))] = None
    regexes_config: Annotated[list[RegexConfig] | None, Must(size=(1, 30))] = None


class ContentFilterConfig(Blocking):
    type: Annotated[
        str | None,
        Must(required=True, one_of=("SEXUAL", "VIOLENCE", "HATE", "INSULTS", "MISCONDUCT", "PROMPT_ATTACK")),
    ] = None
    input_strength: Annotated[str | None, _STRENGTH] = None
    output_strength: Annotated[str | None, _STRENGTH] = None
    input_modalities: Annotated[list[Annotated[str, _MODALITY]] | None, _MODALITIES] = None
    output_modalities: Annotated[list[Annotated[str, _MODALITY]] | None, _MODALITIES] = None


class ContentPolicyConfig(Shape):
    filters_config: Annotated[list[ContentFilterConfig] | None, Must(required=True, size=(1, 6))] = None
    tier_config: TierConfig | None = None


class GroundingFilterConfig(Shape):
    type: Annotated[str | None, Must(required=True, one_of=("GROUNDING", "RELEVANCE"))] = None
    threshold: Annotated[float | None, Must(required=True, value=(0, None))] = None
    action: Annotated[str | None, _BLOCK] = None
    enabled: bool | None = None


class ContextualGroundingPolicyConfig(Shape):
    filters_config: Annotated[list[GroundingFilterConfig] | None, Must(required=True, size=(1, None))] = None
    tier_config: TierConfig | None = None


class AutomatedReasoningPolicyConfig(Shape):
    policies: Annotated[
        list[
            Annotated[
                str,
                Must(
                    size=(1, 2048),
                    pattern=re.compile(
                        rf"{_ARN}:automated-reasoning-policy/[a-z0-9]{{12}}(:([1-9][0-9]{{0,11}}))?"
                    ),
                ),
            ]
        ]
        | None,
        Must(required=True, size=(1, 2)),
    ] = None
    confidence_threshold: Annotated[float | None, Must(value=(0, 1))] = None


class CrossRegionConfig(Shape):
    guardrail_profile_identifier: Annotated[
        str | None, Must(required=True, size=(15, 2048), pattern=_PROFILE)
    ] = None


class UpdateGuardrailRequest(Shape):
    """What a guardrail is. UpdateGuardrail gives all of it anew."""

    name: Annotated[str | None, _NAME] = None
    description: Annotated[str | None, _DESCRIPTION] = None
    topic_policy_config: TopicPolicyConfig | None = None
    content_policy_config: ContentPolicyConfig | None = None
    word_policy_config: WordPolicyConfig | None = None
    sensitive_information_policy_config: SensitiveInformationPolicyConfig | None = None
    contextual_grounding_policy_config: ContextualGroundingPolicyConfig | None = None
    automated_reasoning_policy_config: AutomatedReasoningPolicyConfig | None = None
    cross_region_config: CrossRegionConfig | None = None
    blocked_input_messaging: Annotated[str | None, _MESSAGING] = None
    blocked_outputs_messaging: Annotated[str | None, _MESSAGING] = None
    kms_key_id: Annotated[str | None, KMS_KEY_ID] = None


class CreateGuardrailRequest(UpdateGuardrailRequest):
    tags: Tags = None
    client_request_token: Annotated[str | None, CLIENT_TOKEN] = None


class CreateGuardrailVersionRequest(Shape):
    description: Annotated[str | None, _DESCRIPTION] = None
    client_request_token: Annotated[str | None, CLIENT_TOKEN] = None


class GuardrailIdentified(Shape):
    guardrail_identifier: Annotated[str | None, _IDENTIFIER] = None


class GuardrailVersionIdentified(GuardrailIdentified):
    guardrail_version: Annotated[str | None, _VERSION] = None


class DeleteGuardrailParameters(GuardrailIdentified):
    guardrail_version: Annotated[str | None, _NUMBER] = None


class ListGuardrailsParameters(PageQuery):
    guardrail_identifier: Annotated[str | None, _IDENTIFIER] = None
