"""Prometheus metrics under the names that vLLM dashboards and autoscalers already read, plus our own.

Engine figures are read from `EngineClient.stats` when /metrics is scraped, so they cost nothing between
scrapes. Totals restart from zero with their engine process, as Prometheus counters may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from outcrop.engine.client import EngineClient, EngineStats
from outcrop.telemetry.histogram import Distribution, Histogram

_TTFT_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60.0)
_ITL_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_E2E_BUCKETS = (0.1, 0.3, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0, 200.0, 400.0)
_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def _kv_usage(stats: EngineStats) -> float:
    return stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0


_GAUGES: tuple[tuple[str, str, Callable[[EngineStats], float]], ...] = (
    ("vllm:num_requests_running", "Requests in the current batch.", lambda s: s.running),
    ("vllm:num_requests_waiting", "Requests waiting to be scheduled.", lambda s: s.waiting),
    ("vllm:kv_cache_usage_perc", "Share of KV blocks in use; 1 is full.", _kv_usage),
)
_COUNTERS: tuple[tuple[str, str, Callable[[EngineStats], float]], ...] = (
    ("vllm:prompt_tokens", "Prompt tokens processed.", lambda s: s.prompt_tokens),
    ("vllm:generation_tokens", "Tokens generated.", lambda s: s.generation_tokens),
    ("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", lambda s: s.prefix_queries),
    ("vllm:prefix_cache_hits", "Prompt tokens served from the prefix cache.", lambda s: s.prefix_hits),
    ("vllm:num_preemptions", "Requests preempted to free KV blocks.", lambda s: s.preemptions),
    ("outcrop_prefill_steps", "Engine steps that prefilled.", lambda s: s.prefill_steps),
    ("outcrop_decode_steps", "Engine steps that decoded.", lambda s: s.decode_steps),
    ("outcrop_padded_tokens", "Tokens computed only to fill a bucket.", lambda s: s.padded_tokens),
    ("vllm:spec_decode_num_draft_tokens", "Tokens guessed.", lambda s: s.drafted_tokens),
    ("vllm:spec_decode_num_accepted_tokens", "Tokens guessed that were right.", lambda s: s.accepted_tokens),
    (
        "outcrop_device_busy_seconds",
        "Time that steps ran on the device.",
        lambda s: s.device_busy_us / 1e6,
    ),
    (
        "outcrop_device_idle_seconds",
        "Time that the device waited for the host although there were requests to run.",
        lambda s: s.device_idle_us / 1e6,
    ),
    (
        "outcrop_compiles_after_warmup",
        "Compilations after warm-up; 0 is right.",
        lambda s: s.compiles_after_warmup,
    ),
)


class Metrics:
    """The registry of one server. `engines`: model name to the engine that runs it. loop_lag: of the event
    loop; see `watch_lag`. batch_records: counts those that have an answer."""

    def __init__(self, engines: Mapping[str, EngineClient]) -> None:
        self._registry = CollectorRegistry()
        self._engines = dict(engines)
        self._registry.register(_EngineCollector(self._engines))
        ProcessCollector(registry=self._registry)
        self._responses = Counter(
            "outcrop_http_requests",
            "Answered requests by operation and HTTP status; 499 is a client that went away.",
            ("operation", "status"),
            registry=self._registry,
        )
        self._in_progress = Gauge(
            "outcrop_http_requests_in_progress", "Requests being answered.", registry=self._registry
        )
        self._ends = Counter(
            "vllm:request_success",
            "Generations by how they ended.",
            ("model_name", "finished_reason"),
            registry=self._registry,
        )
        self.batch_records = Counter(
            "outcrop_batch_records",
            "Records of batch jobs that were answered, by outcome: success or error.",
            ("outcome",),
            registry=self._registry,
        )
        self._first_token = self._histogram(
            "vllm:time_to_first_token_seconds", "From the request to its first token.", _TTFT_BUCKETS
        )
        self._between_tokens = self._histogram(
            "vllm:inter_token_latency_seconds", "Between two tokens of an answer.", _ITL_BUCKETS
        )
        self._end_to_end = self._histogram(
            "vllm:e2e_request_latency_seconds", "From the request to its last token.", _E2E_BUCKETS
        )
        lag = self._histogram(
            "outcrop_event_loop_lag_seconds",
            "By how much the API process is late for what it has to do.",
            _LAG_BUCKETS,
            label="",
        )
        self.loop_lag = lag.of()

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], label: str = "model_name"
    ) -> Histogram:
        histogram = Histogram(name, text, buckets, label)
        self._registry.register(histogram)
        return histogram

    def add_engine(self, model_name: str, engine: EngineClient) -> None:
        """One that has come later."""
        self._engines[model_name] = engine

    def remove_engine(self, model_name: str) -> None:
        self._engines.pop(model_name, None)

    def request_started(self) -> None:
        self._in_progress.inc()

    def request_ended(self, operation: str, status: int) -> None:
        """Count one answer. `operation` is one of the API's own names, never client input."""
        self._in_progress.dec()
        self._responses.labels(operation, str(status)).inc()

    def generation(self, model_name: str, arrived: float) -> GenerationTimer:
        """Times one answer of a model; `arrived` is `perf_counter()` when its request came in."""
        return GenerationTimer(
            arrived,
            self._first_token.of(model_name),
            self._between_tokens.of(model_name),
            self._end_to_end.of(model_name),
            lambda reason: self._ends.labels(model_name, reason),
        )

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition that the `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class GenerationTimer:
    """Feeds the latency histograms from one answer's deltas."""

    def __init__(
        self,
        arrived: float,
        first_token: Distribution,
        between_tokens: Distribution,
        end_to_end: Distribution,
        ends: Callable[[str], Counter],
    ) -> None:
        self._arrived = arrived
        self._first_token = first_token
        self._between_tokens = between_tokens
        self._end_to_end = end_to_end
        self._ends = ends
        self._last: float | None = None
        self._seen = 0

    def tokens(self, generated: int) -> None:
        """The answer now has `generated` tokens; several at once share the time since the last."""
        new = generated - self._seen
        if new <= 0:
            return
        now = perf_counter()
        if self._last is None:
            self._first_token.observe(now - self._arrived)
        else:
            self._between_tokens.observe((now - self._last) / new, new)
        self._last, self._seen = now, generated

    def ended(self, reason: str) -> None:
        """The answer is complete, or was given up: stop, length, abort or error."""
        self._ends(reason).inc()
        if reason in ("stop", "length"):
            self._end_to_end.observe(perf_counter() - self._arrived)


class _EngineCollector(Collector):
    def __init__(self, engines: Mapping[str, EngineClient]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        figures = [(name, engine.stats) for name, engine in list(self._engines.items())]
        for metric, text, read in _GAUGES:
            gauge = GaugeMetricFamily(metric, text, labels=["model_name"])
            for name, stats in figures:
                gauge.add_metric([name], read(stats))
            yield gauge
        for metric, text, read in _COUNTERS:
            counter = CounterMetricFamily(metric, text, labels=["model_name"])
            for name, stats in figures:
                counter.add_metric([name], read(stats))
            yield counter
        restarts = CounterMetricFamily(
            "outcrop_engine_restarts", "Engine processes started anew after a death.", labels=["model_name"]
        )
        for name, engine in self._engines.items():
            restarts.add_metric([name], engine.restarts)
        yield restarts
