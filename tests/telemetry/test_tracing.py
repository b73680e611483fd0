"""Spans, read from the SDK's own exporter."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import httpx
import pytest
from api.doubles import Script, ScriptedEngine
from api.server import Server, eventually, running
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from outcrop.engine.client import ModelFailure
from outcrop.telemetry.tracing import Tracing, TracingUnavailable

MODEL = "meta.llama3-8b-instruct-v1:0"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def server(exporter: InMemorySpanExporter) -> Iterator[Server]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with running(ScriptedEngine(), tracing=Tracing(provider)) as server:
        yield server


def converse(server: Server, **headers: str) -> httpx.Response:
    body = {
        "messages": [{"role": "user", "content": [{"text": "canary"}]}],
        "inferenceConfig": {"maxTokens": 20, "temperature": 0.5, "topP": 0.9, "stopSequences": ["X"]},
    }
    return httpx.post(f"{server.url}/model/{MODEL}/converse", json=body, headers=headers)


def only_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    eventually(lambda: bool(exporter.get_finished_spans()))
    (span,) = exporter.get_finished_spans()
    return span


def test_one_span_a_generation_by_the_conventions(server: Server, exporter: InMemorySpanExporter) -> None:
    answer = converse(server)
    span = only_span(exporter)
    assert (span.name, span.kind, span.parent) == (f"chat {MODEL}", SpanKind.SERVER, None)
    attributes = dict(span.attributes or {})
    times = {name: attributes.pop(name) for name in list(attributes) if name.startswith("gen_ai.latency.")}
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ("X",),
        "gen_ai.response.id": answer.headers["x-amzn-requestid"],
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": answer.json()["usage"]["inputTokens"],
        "gen_ai.usage.output_tokens": answer.json()["usage"]["outputTokens"],
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    assert times.keys() == {
        "gen_ai.latency.time_in_queue",
        "gen_ai.latency.time_to_first_token",
        "gen_ai.latency.time_in_model_prefill",
        "gen_ai.latency.time_in_model_decode",
        "gen_ai.latency.e2e",
    }
    assert all(value >= 0 for value in times.values())
    assert times["gen_ai.latency.time_to_first_token"] <= times["gen_ai.latency.e2e"]
    first_step, first_token = span.events
    assert (first_step.name, first_token.name) == ("first step", "first token")
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= first_step.timestamp <= first_token.timestamp <= span.end_time
    assert "canary" not in span.to_json()


CHAT = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("path", "body", "operation", "provider"),
    [
        ("/openai/v1/completions", {"model": MODEL, "prompt": "Hi"}, "text_completion", "openai"),
        ("/openai/v1/chat/completions", CHAT, "chat", "openai"),
        ("/openai/v1/responses", {"model": MODEL, "input": "Hi"}, "chat", "openai"),
        ("/anthropic/v1/messages", CHAT, "chat", "anthropic"),
        (f"/model/{MODEL}/invoke", {"prompt": "Hi"}, "text_completion", "aws.bedrock"),
    ],
)
def test_a_span_says_whose_api_was_called(
    server: Server,
    exporter: InMemorySpanExporter,
    path: str,
    body: object,
    operation: str,
    provider: str,
) -> None:
    assert httpx.post(server.url + path, json=body).status_code == 200
    attributes = only_span(exporter).attributes or {}
    found = (attributes["gen_ai.operation.name"], attributes["gen_ai.provider.name"])
    assert found == (operation, provider)


def test_the_callers_trace_goes_on(server: Server, exporter: InMemorySpanExporter) -> None:
    converse(server, traceparent=PARENT)
    span = only_span(exporter)
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]


def test_a_traceparent_that_is_none_begins_a_new_trace(
    server: Server, exporter: InMemorySpanExporter
) -> None:
    assert converse(server, traceparent="00-zz").status_code == 200
    assert only_span(exporter).parent is None


def test_failures_are_told_without_their_words(server: Server, exporter: InMemorySpanExporter) -> None:
    server.engine.script = Script(error=ModelFailure("canary"))
    assert converse(server).status_code == 424
    span = only_span(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "model_error"
    assert not [event.name for event in span.events]


def test_what_is_missing_is_told_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracingUnavailable, match=r"pip install 'outcrop\[otel\]'"):
        Tracing.to_collector("http://127.0.0.1:4318")
