"""Members that several operations of the control plane have, with what the service model demands of them."""

from __future__ import annotations

import re
from typing import Annotated

from outcrop.api.shapes import Must, Shape

TAG_KEY = Must(required=True, size=(1, 128), pattern=re.compile(r"[a-zA-Z0-9\s._:/=+@-]*"))
TAG_VALUE = Must(required=True, size=(0, 256), pattern=re.compile(r"[a-zA-Z0-9\s._:/=+@-]*"))
CLIENT_TOKEN = Must(size=(1, 256), pattern=re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,254}[a-zA-Z0-9])?"))
ROLE_ARN = Must(
    required=True, size=(0, 2048), pattern=re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
)
KMS_KEY_ID = Must(
    size=(1, 2048),
    pattern=re.compile(
        r"(arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:((key/[a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)))"
        r"|([a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)"
    ),
)
ARN = "arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}"
"""A pattern: how ARNs of the service begin, up to the account."""

ACCOUNT_ID = Must(pattern=re.compile("[0-9]{12}"))
_VPC_ID = Must(size=(0, 32), pattern=re.compile("[-0-9a-zA-Z]+"))

MAX_TAGS = 200


class Tag(Shape):
    key: Annotated[str | None, TAG_KEY] = None
    value: Annotated[str | None, TAG_VALUE] = None


Tags = Annotated[list[Tag] | None, Must(size=(0, MAX_TAGS))]


class VpcConfig(Shape):
    """Taken and shown again; it means nothing here."""

    subnet_ids: Annotated[list[Annotated[str, _VPC_ID]] | None, Must(required=True, size=(1, 16))] = None
    security_group_ids: Annotated[list[Annotated[str, _VPC_ID]] | None, Must(required=True, size=(1, 5))] = (
        None
    )


def tags_by_key(tags: list[Tag] | None) -> dict[str, str]:
    """Checked tags."""
    return {str(tag.key): str(tag.value) for tag in tags or ()}
