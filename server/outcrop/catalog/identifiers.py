"""The syntax of Bedrock model identifiers: which strings name a model, and what they name.

The forms are those of `InvokeModelIdentifier` in the service model, less prompt ARNs: those name a stored
prompt, not a model, and only Converse takes them.
"""

from __future__ import annotations

import re

MAX_IDENTIFIER = 2048

_PARTITION_REGION = r"arn:aws(?:-[^:]+)?:bedrock:[a-z0-9-]{1,20}"
_NAME = r"[a-z0-9-]{1,63}"
_ARN = re.compile(
    rf"{_PARTITION_REGION}:(?:"
    rf":foundation-model/(?P<foundation>{_NAME}\.{_NAME}(?:[.:]{_NAME}){{0,3}})"
    r"|[0-9]{12}:(?:"
    r"(?:application-)?inference-profile/(?P<profile>[a-zA-Z0-9:.-]+)"
    r"|(?:default-)?prompt-router/(?P<router>[a-zA-Z0-9:.-]+)"
    rf"|custom-model/(?P<custom>{_NAME}\.{_NAME}(?:[.:]{_NAME}){{0,3}}/[a-z0-9]{{12}})"
    r"|(?:imported-model|provisioned-model|custom-model-deployment)/(?P<owned>[a-z0-9]{12})"
    r"))"
    r"|arn:aws:sagemaker:[a-z0-9-]+:[0-9]{12}:endpoint/(?P<endpoint>[a-zA-Z0-9-]+)"
)
_BARE = re.compile(r"[a-zA-Z0-9:.-]+|(?:[0-9a-zA-Z][_-]?)+")
_GEOGRAPHY = re.compile(
    r"(?:us-gov|us|eu|apac|ap|ca|sa|au|jp|in|me|kr|sea|emea|global)\.(?P<base>[a-z0-9-]+\..+)"
)

_PROMPT = re.compile(
    rf"{_PARTITION_REGION}:[0-9]{{12}}:prompt/(?P<id>[0-9a-zA-Z]{{10}})(?::(?P<version>[0-9]{{1,5}}))?"
)


def is_valid(identifier: str) -> bool:
    """Whether the service would accept `identifier` as the name of some model."""
    return len(identifier) <= MAX_IDENTIFIER and bool(
        _BARE.fullmatch(identifier) or _ARN.fullmatch(identifier)
    )


def resource_name(identifier: str) -> str:
    """The last part of an ARN (`meta.llama3-8b-instruct-v1:0`); any other identifier as it is."""
    match = _ARN.fullmatch(identifier) if len(identifier) <= MAX_IDENTIFIER else None
    if match is None or match.lastgroup is None:
        return identifier
    return match[match.lastgroup]


def without_geography(identifier: str) -> str:
    """`us.meta.llama3-3-70b-instruct-v1:0` is the profile of `meta.llama3-3-70b-instruct-v1:0`."""
    match = _GEOGRAPHY.fullmatch(identifier)
    return match["base"] if match else identifier


def prompt_of(identifier: str) -> tuple[str, str | None] | None:
    """The id and the version of the stored prompt that an ARN names; None if it names none."""
    match = _PROMPT.fullmatch(identifier)
    return (match["id"], match["version"]) if match else None
