"""Inference profiles and tags as boto3 uses them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

MODEL = "meta.llama3-8b-instruct-v1:0"
ARN = f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"
QUESTION = [{"role": "user", "content": [{"text": "Hi"}]}]


def create(bedrock: Any, name: str, **more: Any) -> str:
    made = bedrock.create_inference_profile(inferenceProfileName=name, modelSource={"copyFrom": ARN}, **more)
    arn: str = made["inferenceProfileArn"]
    return arn


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    code: str = error.value.response["Error"]["Code"]
    return code


def test_an_application_profile_is_a_model_id(bedrock: Any, runtime: Any) -> None:
    arn = create(bedrock, "team a", description="For team a")
    profile = bedrock.get_inference_profile(inferenceProfileIdentifier=arn)
    assert profile["models"] == [{"modelArn": ARN}]
    assert (profile["type"], profile["status"]) == ("APPLICATION", "ACTIVE")
    assert (profile["inferenceProfileName"], profile["description"]) == ("team a", "For team a")
    for identifier in (arn, profile["inferenceProfileId"]):
        answer = runtime.converse(modelId=identifier, messages=QUESTION, inferenceConfig={"maxTokens": 2})
        assert answer["usage"]["outputTokens"] == 2


def test_a_deleted_profile_is_gone(bedrock: Any, runtime: Any) -> None:
    arn = create(bedrock, "a")
    bedrock.delete_inference_profile(inferenceProfileIdentifier=arn)
    with pytest.raises(ClientError) as error:
        bedrock.get_inference_profile(inferenceProfileIdentifier=arn)
    assert code_of(error) == "ResourceNotFoundException"
    with pytest.raises(ClientError) as error:
        runtime.converse(modelId=arn, messages=QUESTION)
    assert code_of(error) == "ValidationException"


def test_a_profile_of_a_profile_of_the_system(bedrock: Any) -> None:
    made = bedrock.create_inference_profile(
        inferenceProfileName="a",
        modelSource={"copyFrom": f"arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.{MODEL}"},
    )
    profile = bedrock.get_inference_profile(inferenceProfileIdentifier=made["inferenceProfileArn"])
    assert profile["models"] == [{"modelArn": ARN}]


def test_a_profile_of_nothing(bedrock: Any) -> None:
    with pytest.raises(ClientError) as error:
        bedrock.create_inference_profile(
            inferenceProfileName="a", modelSource={"copyFrom": f"{ARN.rpartition('/')[0]}/meta.other-v1:0"}
        )
    assert code_of(error) == "ResourceNotFoundException"


def test_a_token_makes_one_profile(bedrock: Any) -> None:
    assert create(bedrock, "a", clientRequestToken="t") == create(bedrock, "a", clientRequestToken="t")
    with pytest.raises(ClientError) as error:
        create(bedrock, "b", clientRequestToken="t")
    assert code_of(error) == "ConflictException"


@pytest.mark.parametrize("page", [1, 3, 4, 5, 100])
def test_the_paginator_sees_each_once(bedrock: Any, page: int) -> None:
    made = {create(bedrock, f"profile {number}") for number in range(5)}
    pages = bedrock.get_paginator("list_inference_profiles").paginate(PaginationConfig={"PageSize": page})
    arns = [each["inferenceProfileArn"] for one in pages for each in one["inferenceProfileSummaries"]]
    system = {
        f"arn:aws:bedrock:us-east-1:000000000000:inference-profile/{geography}.{MODEL}"
        for geography in ("us", "eu", "apac", "global")
    }
    assert sorted(arns) == sorted(made | system)


def test_one_type_alone(bedrock: Any) -> None:
    create(bedrock, "a")
    for kind, count in (("APPLICATION", 1), ("SYSTEM_DEFINED", 4)):
        found = bedrock.list_inference_profiles(typeEquals=kind)["inferenceProfileSummaries"]
        assert [each["type"] for each in found] == [kind] * count


def test_a_page_token_of_nobodys(bedrock: Any) -> None:
    with pytest.raises(ClientError, match="nextToken") as error:
        bedrock.list_inference_profiles(typeEquals="APPLICATION", nextToken="abc")
    assert code_of(error) == "ValidationException"


def test_a_profile_of_the_system_stays(bedrock: Any) -> None:
    with pytest.raises(ClientError, match="System-defined") as error:
        bedrock.delete_inference_profile(inferenceProfileIdentifier=f"us.{MODEL}")
    assert code_of(error) == "ValidationException"


def test_tags(bedrock: Any) -> None:
    arn = create(bedrock, "a", tags=[{"key": "team", "value": "a"}, {"key": "cost", "value": "1"}])
    bedrock.tag_resource(resourceARN=arn, tags=[{"key": "cost", "value": "2"}])
    bedrock.untag_resource(resourceARN=arn, tagKeys=["team"])
    tags = bedrock.list_tags_for_resource(resourceARN=arn)["tags"]
    assert tags == [{"key": "cost", "value": "2"}]


def test_too_many_tags(bedrock: Any) -> None:
    arn = create(bedrock, "a", tags=[{"key": str(number), "value": ""} for number in range(200)])
    with pytest.raises(ClientError) as error:
        bedrock.tag_resource(resourceARN=arn, tags=[{"key": "one more", "value": ""}])
    assert code_of(error) == "TooManyTagsException"
    assert len(bedrock.list_tags_for_resource(resourceARN=arn)["tags"]) == 200


def test_tags_of_nothing(bedrock: Any) -> None:
    with pytest.raises(ClientError) as error:
        bedrock.list_tags_for_resource(resourceARN=f"arn:aws:bedrock:us-east-1:{'0' * 12}:guardrail/abc")
    assert code_of(error) == "ResourceNotFoundException"
