"""Which strings name a model, checked against the service model's own pattern."""

from __future__ import annotations

import re

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcrop.catalog import identifiers
from outcrop.catalog.bedrock_models import LLAMA_TEXT_MODELS

VALID = {
    "meta.llama3-8b-instruct-v1:0": "meta.llama3-8b-instruct-v1:0",
    "us.meta.llama3-3-70b-instruct-v1:0": "us.meta.llama3-3-70b-instruct-v1:0",
    "meta.llama3-1-8b-instruct-v1:0:128k": "meta.llama3-1-8b-instruct-v1:0:128k",
    "my_model": "my_model",
    "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-v1:0": "meta.llama3-v1:0",
    "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:inference-profile/us.meta.x-v1:0": "us.meta.x-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456": "abc123def456",
    "arn:aws:bedrock:us-east-1:123456789012:imported-model/abc123def456": "abc123def456",
    "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc123def456": "abc123def456",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abc123def456": "abc123def456",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/meta.llama/abc123def456": "meta.llama/abc123def456",
    "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/meta.llama:1": "meta.llama:1",
    "arn:aws:sagemaker:us-east-1:123456789012:endpoint/my-endpoint": "my-endpoint",
}
INVALID = [
    "",
    "../x",
    "a/b",
    "model with spaces",
    "modèle",
    "x\n",
    "x" * 2049,
    "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ",
    "arn:aws:s3:::bucket/key",
    "arn:aws:bedrock:us-east-1:12:imported-model/abc123def456",
]


@pytest.mark.parametrize(("identifier", "resource"), VALID.items())
def test_valid_identifiers_and_what_they_name(identifier: str, resource: str) -> None:
    assert identifiers.is_valid(identifier)
    assert identifiers.resource_name(identifier) == resource


@pytest.mark.parametrize("identifier", INVALID)
def test_invalid_identifiers(identifier: str) -> None:
    assert not identifiers.is_valid(identifier)
    assert identifiers.resource_name(identifier) == identifier


@pytest.mark.parametrize(
    ("identifier", "base"),
    [
        ("us.meta.llama3-8b-instruct-v1:0", "meta.llama3-8b-instruct-v1:0"),
        ("apac.meta.llama3", "meta.llama3"),
        ("global.meta.llama3", "meta.llama3"),
        ("us.model", "us.model"),
        ("meta.llama3-8b-instruct-v1:0", "meta.llama3-8b-instruct-v1:0"),
        ("xx.meta.llama3", "xx.meta.llama3"),
    ],
)
def test_geography(identifier: str, base: str) -> None:
    assert identifiers.without_geography(identifier) == base


model = botocore.session.get_session().get_service_model("bedrock-runtime")
INVOKE_PATTERN = re.compile(model.shape_for("InvokeModelIdentifier").metadata["pattern"])


@given(st.from_regex(INVOKE_PATTERN, fullmatch=True).filter(lambda name: ":prompt/" not in name))
def test_every_identifier_the_service_accepts_is_accepted(identifier: str) -> None:
    # fullmatch lets `$` match before a last line break, which is no part of an identifier.
    assert identifiers.is_valid(identifier.removesuffix("\n"))


@given(st.text(alphabet="abz09.:-_/ar n\n%", max_size=60))
def test_nothing_is_accepted_that_the_service_refuses(text: str) -> None:
    if identifiers.is_valid(text):
        assert INVOKE_PATTERN.fullmatch(text)


def test_the_known_models_fit_the_service_model() -> None:
    pattern = re.compile(
        botocore.session.get_session()
        .get_service_model("bedrock")
        .shape_for("BedrockModelId")
        .metadata["pattern"]
    )
    for known in LLAMA_TEXT_MODELS:
        assert pattern.fullmatch(known.model_id)
        assert known.max_output is not None
        assert known.context is not None
        assert known.max_output < known.context


@pytest.mark.parametrize(
    ("identifier", "named"),
    [
        ("arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ", ("ABCDEFGHIJ", None)),
        ("arn:aws-cn:bedrock:cn-north-1:123456789012:prompt/abcde12345:7", ("abcde12345", "7")),
        ("arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJK", None),
        ("arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1\n", None),
        ("meta.llama3-8b-instruct-v1:0", None),
    ],
)
def test_prompts(identifier: str, named: tuple[str, str | None] | None) -> None:
    assert identifiers.prompt_of(identifier) == named
