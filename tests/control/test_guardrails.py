"""Guardrails as boto3 makes and keeps them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from outcrop.api.guardrails.shapes import PII_TYPES
from outcrop.guardrails.pii import FORMS, WITHOUT_FORM

from ..api.server import Server
from ..api.shapes import CONTROL, assert_fits

MESSAGES = {"blockedInputMessaging": "Not that.", "blockedOutputsMessaging": "Nothing of that."}
WORDS = {"wordPolicyConfig": {"wordsConfig": [{"text": "forbidden"}]}}
ALL = {
    "description": "all policies",
    "topicPolicyConfig": {
        "topicsConfig": [
            {"name": "Money", "definition": "Advice on it.", "examples": ["Which stocks?"], "type": "DENY"}
        ],
        "tierConfig": {"tierName": "CLASSIC"},
    },
    "wordPolicyConfig": {
        "wordsConfig": [{"text": "forbidden", "inputAction": "NONE", "outputEnabled": False}],
        "managedWordListsConfig": [{"type": "PROFANITY"}],
    },
    "sensitiveInformationPolicyConfig": {
        "piiEntitiesConfig": [{"type": "EMAIL", "action": "ANONYMIZE"}],
        "regexesConfig": [{"name": "id", "pattern": r"ID-\d+", "action": "BLOCK", "description": "numbers"}],
    },
}  # fmt: skip


def create(bedrock: Any, **fields: Any) -> str:
    made = bedrock.create_guardrail(**{"name": "mine", **MESSAGES, **(fields or WORDS)})
    identifier: str = made["guardrailId"]
    return identifier


def refused(call: Any, code: str, says: str) -> None:
    with pytest.raises(ClientError, match=says) as error:
        call()
    assert error.value.response["Error"]["Code"] == code


def test_a_guardrail_is_what_it_was_made(bedrock: Any) -> None:
    made = bedrock.create_guardrail(name="mine", **MESSAGES, **ALL)
    assert made["version"] == "DRAFT"
    for name in (made["guardrailId"], made["guardrailArn"]):
        shown = bedrock.get_guardrail(guardrailIdentifier=name)
        del shown["ResponseMetadata"]
        assert shown.pop("createdAt") == shown.pop("updatedAt") == made["createdAt"]
        assert shown == {
            "name": "mine",
            "description": "all policies",
            "guardrailId": made["guardrailId"],
            "guardrailArn": made["guardrailArn"],
            "version": "DRAFT",
            "status": "READY",
            "topicPolicy": {
                "topics": ALL["topicPolicyConfig"]["topicsConfig"],
                "tier": {"tierName": "CLASSIC"},
            },
            "wordPolicy": {
                "words": ALL["wordPolicyConfig"]["wordsConfig"],
                "managedWordLists": [{"type": "PROFANITY"}],
            },
            "sensitiveInformationPolicy": {
                "piiEntities": [{"type": "EMAIL", "action": "ANONYMIZE"}],
                "regexes": ALL["sensitiveInformationPolicyConfig"]["regexesConfig"],
            },
            **MESSAGES,
        }


def test_a_version_stays_as_the_draft_was(bedrock: Any) -> None:
    identifier = create(bedrock)
    first = bedrock.create_guardrail_version(guardrailIdentifier=identifier, description="the first")
    assert first["version"] == "1"
    bedrock.update_guardrail(guardrailIdentifier=identifier, name="other", **MESSAGES, **ALL)
    version = bedrock.get_guardrail(guardrailIdentifier=identifier, guardrailVersion="1")
    assert (version["name"], version["description"], version["version"]) == ("mine", "the first", "1")
    assert "topicPolicy" not in version
    draft = bedrock.get_guardrail(guardrailIdentifier=identifier)
    assert (draft["name"], draft["description"]) == ("other", "all policies")
    assert draft["updatedAt"] > draft["createdAt"]


def test_numbers_of_versions_are_not_used_again(bedrock: Any) -> None:
    identifier = create(bedrock)
    for number in ("1", "2"):
        assert bedrock.create_guardrail_version(guardrailIdentifier=identifier)["version"] == number
    bedrock.delete_guardrail(guardrailIdentifier=identifier, guardrailVersion="2")
    assert bedrock.create_guardrail_version(guardrailIdentifier=identifier)["version"] == "3"
    refused(
        lambda: bedrock.get_guardrail(guardrailIdentifier=identifier, guardrailVersion="2"),
        "ResourceNotFoundException",
        "version 2 does not exist",
    )


def test_a_token_makes_one(bedrock: Any) -> None:
    first, other = (create(bedrock, **WORDS, clientRequestToken=token) for token in ("a", "b"))
    assert create(bedrock, **WORDS, clientRequestToken="a") == first != other
    refused(lambda: create(bedrock, **ALL, clientRequestToken="a"), "ConflictException", "other parameters")
    ask = {"guardrailIdentifier": first, "clientRequestToken": "v"}
    assert [bedrock.create_guardrail_version(**ask)["version"] for _ in range(2)] == ["1", "1"]
    ask["guardrailIdentifier"] = other
    refused(lambda: bedrock.create_guardrail_version(**ask), "ConflictException", "other parameters")


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_the_paginator_sees_each_once(bedrock: Any, page: int) -> None:
    made = [create(bedrock) for _ in range(3)]
    for _ in range(3):
        bedrock.create_guardrail_version(guardrailIdentifier=made[0])
    bedrock.create_guardrail_version(guardrailIdentifier=made[1])

    def listed(**of: str) -> list[Any]:
        pages = bedrock.get_paginator("list_guardrails").paginate(PaginationConfig={"PageSize": page}, **of)
        return [(each["id"], each["version"]) for one in pages for each in one["guardrails"]]

    assert listed() == [(each, "DRAFT") for each in reversed(made)]
    assert listed(guardrailIdentifier=made[0]) == [(made[0], each) for each in ("DRAFT", "3", "2", "1")]
    assert listed(guardrailIdentifier=made[2]) == [(made[2], "DRAFT")]


def test_a_deleted_guardrail_is_gone_with_its_versions(bedrock: Any) -> None:
    identifier = create(bedrock)
    bedrock.create_guardrail_version(guardrailIdentifier=identifier)
    bedrock.delete_guardrail(guardrailIdentifier=identifier)
    for version in ("DRAFT", "1"):
        refused(
            lambda version=version: bedrock.get_guardrail(
                guardrailIdentifier=identifier, guardrailVersion=version
            ),
            "ResourceNotFoundException",
            "does not exist",
        )
    refused(
        lambda: bedrock.delete_guardrail(guardrailIdentifier=identifier),
        "ResourceNotFoundException",
        "not found",
    )
    assert bedrock.list_guardrails()["guardrails"] == []


def test_tags(bedrock: Any) -> None:
    made = bedrock.create_guardrail(name="mine", tags=[{"key": "team", "value": "a"}], **MESSAGES, **WORDS)
    arn = made["guardrailArn"]
    bedrock.tag_resource(resourceARN=arn, tags=[{"key": "cost", "value": "1"}])
    tags = bedrock.list_tags_for_resource(resourceARN=arn)["tags"]
    assert tags == [{"key": "cost", "value": "1"}, {"key": "team", "value": "a"}]


REGEXES = {"name": "id", "action": "BLOCK"}
REFUSED: dict[str, dict[str, Any]] = {
    "contentPolicyConfig": {"filtersConfig": [
        {"type": "HATE", "inputStrength": "HIGH", "outputStrength": "HIGH"}
    ]},
    "contextualGroundingPolicyConfig": {"filtersConfig": [{"type": "GROUNDING", "threshold": 0.5}]},
    "crossRegionConfig": {"guardrailProfileIdentifier": "us.guardrail.v1:0"},
    "topicPolicyConfig.tierConfig": {
        "topicsConfig": [{"name": "a", "definition": "b", "type": "DENY"}],
        "tierConfig": {"tierName": "STANDARD"},
    },
    "regexesConfig.1.pattern": {"regexesConfig": [
        {**REGEXES, "pattern": "a"}, {**REGEXES, "pattern": "(?=a)b"}
    ]},
    **{
        f"PII type {type_}": {"piiEntitiesConfig": [{"type": type_, "action": "BLOCK"}]}
        for type_ in WITHOUT_FORM
    },
}  # fmt: skip


@pytest.mark.parametrize("says", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(bedrock: Any, says: str) -> None:
    value = REFUSED[says]
    member = says.partition(".")[0] if says.endswith(("Config",)) else "sensitiveInformationPolicyConfig"
    fields = WORDS | {member: value}
    refused(lambda: create(bedrock, **fields), "ValidationException", says)
    identifier = create(bedrock)
    refused(
        lambda: bedrock.update_guardrail(guardrailIdentifier=identifier, name="a", **MESSAGES, **fields),
        "ValidationException",
        says,
    )


def test_every_type_has_a_form_or_is_refused() -> None:
    assert {*FORMS, *WITHOUT_FORM} == {*PII_TYPES}


def test_a_guardrail_of_nothing(bedrock: Any) -> None:
    refused(
        lambda: bedrock.create_guardrail(name="mine", **MESSAGES), "ValidationException", "at least one topic"
    )


def test_policies_as_the_model_has_them(bedrock: Any, server: Server) -> None:
    """Whatever botocore lets pass."""
    answer = httpx.get(f"{server.url}/guardrails/{create(bedrock, **ALL)}")
    assert_fits(answer.json(), CONTROL.operation_model("GetGuardrail").output_shape)
