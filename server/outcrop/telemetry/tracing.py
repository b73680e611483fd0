"""One OpenTelemetry span for each generation, by the semantic conventions for generative AI.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. What was said is in none of them. The times
of a generation's phases have the names that vLLM gives them. The OpenTelemetry SDK is an extra
(`outcrop[otel]`), imported when tracing is configured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outcrop.telemetry.timer import COMPLETE, GenerationTimer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PROPAGATED = ("traceparent", "tracestate")
"""Headers of W3C Trace Context."""

_NANOSECONDS = 1e9


class TracingUnavailable(ValueError):
    """Tracing is configured, and what it needs is not installed."""


@dataclass(frozen=True, slots=True)
class TracedCall:
    """What a span says of a call. operation: as the conventions name it, `chat` or `text_completion`.
    headers: those of PROPAGATED that came with it. request_id: of its answer."""

    operation: str
    model: str
    request_id: str
    provider: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


class Tracing:
    """Makes spans with a provider, which is shut down with this."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("outcrop")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to_collector(cls, endpoint: str) -> Tracing:
        """Spans go to an OTLP collector over HTTP. endpoint: such as http://127.0.0.1:4318. Raises
        TracingUnavailable."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise TracingUnavailable(
                "telemetry.otlp_endpoint is set, and OpenTelemetry is not installed: "
                "pip install 'outcrop[otel]'"
            ) from None
        provider = TracerProvider(resource=Resource.create({"service.name": "outcrop"}))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()

    def record(
        self, call: TracedCall, timer: GenerationTimer, reason: str, prompt: int, cached: int, generated: int
    ) -> None:
        """The span of a generation that has ended. reason: stop, length, abort or error."""
        from opentelemetry.trace import SpanKind, StatusCode

        ended = time.perf_counter()
        # Spans are in the wall clock's time, the timer in that of a clock that is never set.
        offset = time.time() - ended

        def instant(seconds: float) -> int:
            return int((seconds + offset) * _NANOSECONDS)

        span = self._tracer.start_span(
            f"{call.operation} {call.model}",
            context=self._propagator.extract(call.headers),
            kind=SpanKind.SERVER,
            start_time=instant(timer.arrived),
            attributes=_attributes(call, timer, reason, prompt, cached, generated, ended),
        )
        if timer.queued is not None and timer.first is not None:
            span.add_event("first step", timestamp=instant(timer.submitted + timer.queued))
            span.add_event("first token", timestamp=instant(timer.first))
        if reason not in COMPLETE:
            span.set_attribute("error.type", "client_disconnected" if reason == "abort" else "model_error")
            if reason == "error":
                span.set_status(StatusCode.ERROR)
        span.end(instant(ended))


def _attributes(
    call: TracedCall,
    timer: GenerationTimer,
    reason: str,
    prompt: int,
    cached: int,
    generated: int,
    ended: float,
) -> dict[str, str | int | float | tuple[str, ...]]:
    known = {
        "gen_ai.operation.name": call.operation,
        "gen_ai.provider.name": call.provider,
        "gen_ai.request.model": call.model,
        "gen_ai.request.max_tokens": call.max_tokens,
        "gen_ai.request.temperature": call.temperature,
        "gen_ai.request.top_p": call.top_p,
        "gen_ai.request.stop_sequences": call.stop or None,
        "gen_ai.response.id": call.request_id,
        "gen_ai.response.finish_reasons": (reason,),
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": generated,
        "gen_ai.usage.cache_read.input_tokens": cached,
        "gen_ai.latency.time_in_queue": timer.queued,
        "gen_ai.latency.time_to_first_token": timer.first_token,
        "gen_ai.latency.time_in_model_prefill": timer.prefill,
        "gen_ai.latency.time_in_model_decode": timer.decode,
        "gen_ai.latency.e2e": ended - timer.arrived,
    }
    return {name: value for name, value in known.items() if value is not None}
