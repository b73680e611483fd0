"""The record of one invocation, as the service writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from outcrop.api.auth.bearer import ACCOUNT
from outcrop.api.invocation_log import bodies
from outcrop.api.invocation_log.destination import folder_of
from outcrop.api.invocation_log.invocation import Invocation

MOST_INLINE = 100 * 1024
"""Bytes of a body in its record; a longer one is an object of its own."""

_CONTENT_TYPE = "application/json"

encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Record:
    """line: the record, one JSON object. large: its bodies that are objects of their own, JSON by their names
    below the destination's URI."""

    line: bytes = b""
    large: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, invocation: Invocation, region: str) -> Record:
        """Slow for long bodies: for a thread."""
        record = cls()
        asked = bodies.parsed(invocation.request)
        answered, code = bodies.stream_body(invocation.content_type, bytes(invocation.answer))
        code = invocation.error_code or code
        request = asked if isinstance(asked, dict) else {}
        usage = answered.get("usage") if isinstance(answered, dict) else None
        source, result = _counts(invocation, usage if isinstance(usage, dict) else {})
        if invocation.destination.text:
            if not invocation.destination.documents:
                asked = bodies.without_documents(asked)
            source = record._body("input", asked, invocation, region) | source
            if not invocation.error_code:
                result = record._body("output", answered, invocation, region) | result
        told: dict[str, Any] = {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": f"{invocation.at:%Y-%m-%dT%H:%M:%SZ}",
            "accountId": ACCOUNT,
            "identity": {"arn": invocation.identity},
            "region": region,
            "requestId": invocation.request_id,
            "operation": invocation.operation,
            "modelId": invocation.model_id or request.get("model"),
            "errorCode": code or None,
            "input": {"inputContentType": _CONTENT_TYPE} | source,
            "output": {"outputContentType": _CONTENT_TYPE} | result,
            "requestMetadata": _metadata(invocation, request),
        }
        record.line = encode({name: value for name, value in told.items() if value is not None})
        return record

    def _body(self, side: str, body: Any, invocation: Invocation, region: str) -> dict[str, Any]:
        text = encode(body)
        if len(text) <= MOST_INLINE:
            return {f"{side}BodyJson": msgspec.Raw(text)}
        name = f"{folder_of(region, invocation.at)}/data/{invocation.request_id}_{side}.json.gz"
        self.large[name] = text
        return {f"{side}BodyS3Path": f"{invocation.destination.uri}/{name}"}


def _counts(invocation: Invocation, usage: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tokens of the input and of the output. Only answers of Converse say what cache points did."""
    if "inputTokens" in usage:
        source = {
            "inputTokenCount": usage["inputTokens"],
            "cacheReadInputTokenCount": usage.get("cacheReadInputTokens", 0),
            "cacheWriteInputTokenCount": usage.get("cacheWriteInputTokens", 0),
        }
        return source, {"outputTokenCount": usage["outputTokens"]}
    tally = invocation.tally
    if not tally.prompt:
        return {}, {}
    return {"inputTokenCount": tally.prompt}, {"outputTokenCount": tally.generated}


def _metadata(invocation: Invocation, request: dict[str, Any]) -> Any:
    """What the client tells its requests apart by, in the body or in a header."""
    if invocation.metadata:
        return bodies.parsed(invocation.metadata.encode())
    return request.get("requestMetadata")
