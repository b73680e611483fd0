"""Where invocation logs go, and under which names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from outcrop.api.auth.bearer import ACCOUNT

_LOGS = f"AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs"


@dataclass(frozen=True, slots=True)
class Destination:
    """uri: `s3://bucket/prefix` or `file:///folder/prefix`. text: whether bodies are delivered at all.
    documents: whether those of a conversation are delivered with it, which the service decides by its switch
    for images."""

    uri: str
    text: bool = True
    documents: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Destination:
        """From a checked `loggingConfig` with an `s3Config`. What is not said is delivered."""
        place: Mapping[str, str] = config["s3Config"]
        bucket, prefix = place["bucketName"].rstrip("/"), place.get("keyPrefix", "").strip("/")
        base = bucket if bucket.startswith("file://") else f"s3://{bucket}"
        return cls(
            f"{base}/{prefix}".rstrip("/"),
            config.get("textDataDeliveryEnabled", True),
            config.get("imageDataDeliveryEnabled", True),
        )


PERMISSION_CHECK = f"{_LOGS}/amazon-bedrock-logs-permission-check"
"""What is written when a configuration is put, below the destination's URI, as the service does."""


def folder_of(region: str, at: datetime) -> str:
    """Below the destination's URI: one folder an hour."""
    return f"{_LOGS}/{region}/{at.astimezone(UTC):%Y/%m/%d/%H}"


def file_name(at: datetime) -> str:
    """Of a file of records that is written at this time."""
    moment = at.astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03}Z_{secrets.token_hex(8)}.json.gz"
