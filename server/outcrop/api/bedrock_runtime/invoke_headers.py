"""InvokeModel's parameters and results that travel in headers."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from starlette.datastructures import Headers

from outcrop.api import errors
from outcrop.api.bedrock_runtime.models import (
    GUARDRAIL_IDENTIFIER,
    GUARDRAIL_VERSION,
    LATENCIES,
    SERVICE_TIERS,
)
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.smithy import Constraints
from outcrop.catalog.model import TextDelta

GUARDRAIL_HEADER = "x-amzn-bedrock-guardrailidentifier"
_LATENCY = "x-amzn-bedrock-performanceconfig-latency"
_TIER = "x-amzn-bedrock-service-tier"
_MAX_METADATA = 8500


@dataclass(frozen=True, slots=True)
class InvokeHeaders:
    """What a request's headers ask for. echoed: the headers that the answer repeats. guardrail_identifier,
    guardrail_version: "" for none. trace: what of the guardrail's findings the answer tells."""

    tier: str | None
    echoed: dict[str, str]
    guardrail_identifier: str
    guardrail_version: str
    trace: str

    @classmethod
    def of(cls, headers: Headers) -> InvokeHeaders:
        """Raises ValidationException for values outside the service model. Content types are not looked at:
        every body is JSON, and HTTP libraries fill in types of their own."""
        guardrail = headers.get(GUARDRAIL_HEADER)
        version = headers.get("x-amzn-bedrock-guardrailversion")
        metadata = headers.get("x-amzn-bedrock-request-metadata")
        constraints = Constraints()
        trace = headers.get("x-amzn-bedrock-trace")
        constraints.one_of("trace", trace, ("ENABLED", "DISABLED", "ENABLED_FULL"))
        GUARDRAIL_IDENTIFIER.check(constraints, ("guardrailIdentifier",), guardrail)
        GUARDRAIL_VERSION.check(constraints, ("guardrailVersion",), version)
        constraints.one_of("performanceConfigLatency", headers.get(_LATENCY), LATENCIES)
        constraints.one_of("serviceTier", headers.get(_TIER), SERVICE_TIERS)
        constraints.size("requestMetadata", metadata, 0, _MAX_METADATA)
        constraints.raise_if_violated()
        if metadata:
            _check_metadata(metadata)
        return cls(
            headers.get(_TIER),
            {name: headers[name] for name in (_LATENCY, _TIER) if name in headers},
            guardrail or "",
            version or "",
            trace or "DISABLED",
        )

    @property
    def names_guardrail(self) -> bool:
        return bool(self.guardrail_identifier or self.guardrail_version)


def refuse_guardrail(headers: Headers) -> None:
    """For routes that apply none. Raises ValidationException."""
    if headers.get(GUARDRAIL_HEADER):
        raise errors.validation(
            "Guardrails are applied by Converse, InvokeModel and ApplyGuardrail, not here. Remove the header "
            "X-Amzn-Bedrock-GuardrailIdentifier and try again."
        )


def counts(last: TextDelta, watch: Stopwatch) -> dict[str, str]:
    """What instrumentation reads from the answer's headers: tokens, and milliseconds. It adds up the three
    counts of input tokens; a native body marks no cache point, so all of them are of the first."""
    return {
        "x-amzn-bedrock-input-token-count": str(last.prompt),
        "x-amzn-bedrock-output-token-count": str(last.generated),
        "x-amzn-bedrock-cache-read-input-token-count": "0",
        "x-amzn-bedrock-cache-write-input-token-count": "0",
        "x-amzn-bedrock-invocation-latency": str(watch.elapsed_ms()),
    }


def _check_metadata(metadata: str) -> None:
    """It must be a JSON object of strings."""
    try:
        msgspec.json.decode(metadata, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise errors.invalid_request_metadata() from None
