"""InvokeModel's parameters and results that travel in headers."""

from __future__ import annotations

from starlette.datastructures import Headers

from outcrop.api import errors
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.bedrock_runtime.validate import LATENCIES, SERVICE_TIERS
from outcrop.api.smithy import Constraints
from outcrop.catalog.model import TextDelta

_LATENCY = "x-amzn-bedrock-performanceconfig-latency"
_TIER = "x-amzn-bedrock-service-tier"
_MAX_METADATA = 8500


def check(headers: Headers) -> dict[str, str]:
    """The headers that the answer repeats. Raises ValidationException for values outside the service model
    and for guardrails, which this server does not apply."""
    constraints = Constraints()
    constraints.one_of("trace", headers.get("x-amzn-bedrock-trace"), ("ENABLED", "DISABLED", "ENABLED_FULL"))
    constraints.one_of("performanceConfigLatency", headers.get(_LATENCY), LATENCIES)
    constraints.one_of("serviceTier", headers.get(_TIER), SERVICE_TIERS)
    constraints.size("requestMetadata", headers.get("x-amzn-bedrock-request-metadata"), 0, _MAX_METADATA)
    constraints.raise_if_violated()
    for name in ("guardrailIdentifier", "guardrailVersion"):
        if headers.get(f"x-amzn-bedrock-{name}"):
            raise errors.unsupported_field(name)
    return {name: headers[name] for name in (_LATENCY, _TIER) if name in headers}


def counts(last: TextDelta, watch: Stopwatch) -> dict[str, str]:
    """What instrumentation reads from the answer's headers: tokens, and milliseconds."""
    return {
        "x-amzn-bedrock-input-token-count": str(last.prompt),
        "x-amzn-bedrock-output-token-count": str(last.generated),
        "x-amzn-bedrock-invocation-latency": str(watch.elapsed_ms()),
    }
