"""Prometheus metrics under the names that vLLM dashboards and autoscalers already read, plus our own.

Engine figures are read from `EngineClient.stats` when /metrics is scraped, so they cost nothing between
scrapes. Totals restart from zero with their engine process, as Prometheus counters may.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from outcrop.engine.client import EngineClient, EngineStats
from outcrop.telemetry.histogram import Histogram
from outcrop.telemetry.neuron_monitor import NeuronMonitor
from outcrop.telemetry.spend import Spend
from outcrop.telemetry.timer import GenerationTimer, ModelTimes

_TTFT_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60.0)
_ITL_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_E2E_BUCKETS = (0.1, 0.3, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0, 200.0, 400.0)
_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_STEP_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0)
_TOKEN_BUCKETS = (1, 8, 32, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072)

_MOST_TENANTS = 100
"""Tenants that the metrics tell apart; each is a series."""

_HISTOGRAMS: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "first_token": (
        "vllm:time_to_first_token_seconds", "From the request to its first token.", _TTFT_BUCKETS
    ),
    "between_tokens": (
        "vllm:inter_token_latency_seconds", "Between two tokens of an answer.", _ITL_BUCKETS
    ),
    "end_to_end": (
        "vllm:e2e_request_latency_seconds", "From the request to its last token.", _E2E_BUCKETS
    ),
    "queue": (
        "vllm:request_queue_time_seconds", "From the prompt's being ready to its first step.", _STEP_BUCKETS
    ),
    "prefill": (
        "vllm:request_prefill_time_seconds", "From the first step to the first token.", _STEP_BUCKETS
    ),
    "decode": (
        "vllm:request_decode_time_seconds", "From the first token to the last.", _E2E_BUCKETS
    ),
    "per_output_token": (
        "vllm:request_time_per_output_token_seconds",
        "From the first token to the last, for each token after the first.",
        _ITL_BUCKETS,
    ),
    "prompt_tokens": ("vllm:request_prompt_tokens", "Tokens of a prompt.", _TOKEN_BUCKETS),
    "output_tokens": ("vllm:request_generation_tokens", "Tokens of an answer.", _TOKEN_BUCKETS),
}  # fmt: skip
"""Fields of ModelTimes: name, text and buckets."""


def _kv_usage(stats: EngineStats) -> float:
    return stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0


_REPLICA = ("model_name", "engine")
"""Labels of an engine's figures; the second is what vLLM calls the number of a replica. Their sum over it is
the model's."""

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
        "outcrop_host_busy_seconds",
        "Time that the engine's loop worked on steps, without waiting for the device or for requests.",
        lambda s: s.host_busy_us / 1e6,
    ),
    (
        "outcrop_compiles_after_warmup",
        "Compilations after warm-up; 0 is right.",
        lambda s: s.compiles_after_warmup,
    ),
)


class Metrics:
    """The registry of one server. `engines`: model name to the engine that runs it. loop_lag: of the event
    loop; see `watch_lag`. batch_records: counts those that have an answer. invocation_log_records: counts
    those that were delivered or lost. spend: what it costs. neuron_monitor: whose metrics are passed on."""

    def __init__(
        self,
        engines: Mapping[str, EngineClient],
        spend: Spend | None = None,
        neuron_monitor: NeuronMonitor | None = None,
    ) -> None:
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
        self._times = {name: self._histogram(*each) for name, each in _HISTOGRAMS.items()}
        self._of_model: dict[str, ModelTimes] = {}
        self._waiting: Tally[str] = Tally()
        self._registry.register(_Waiting(self._waiting))
        self._spend = spend
        if spend is not None:
            self._registry.register(spend)
        self._neuron_monitor = neuron_monitor
        if neuron_monitor is not None:
            self._registry.register(neuron_monitor)
        self.batch_records = Counter(
            "outcrop_batch_records",
            "Records of batch jobs that were answered, by outcome: success or error.",
            ("outcome",),
            registry=self._registry,
        )
        self.invocation_log_records = Counter(
            "outcrop_invocation_log_records",
            "Invocations whose log was delivered, or dropped because that could not be done.",
            ("outcome",),
            registry=self._registry,
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

    def generation(
        self, model_name: str, tenant: str, prompt_tokens: int, arrived: float
    ) -> ObservedGeneration:
        """One answer of a model from here to its end; `arrived` is `perf_counter()` when its request came
        in."""
        if (times := self._of_model.get(model_name)) is None:
            of_model = {name: histogram.of(model_name) for name, histogram in self._times.items()}
            times = self._of_model[model_name] = ModelTimes(**of_model)
        timer = GenerationTimer(arrived, prompt_tokens, times)
        label = tenant or "-"
        if label not in self._waiting and len(self._waiting) >= _MOST_TENANTS:
            label = "other"
        self._waiting[label] += 1
        return ObservedGeneration(self, model_name, label, prompt_tokens, timer)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """One more gauge, read when the metrics are."""
        Gauge(name, text, registry=self._registry).set_function(read)

    def first_token_of(self, tenant: str) -> None:
        self._waiting[tenant] -= 1

    def generation_ended(
        self, model_name: str, reason: str, prompt_tokens: int, cached: int, generated: int
    ) -> None:
        self._ends.labels(model_name, reason).inc()
        if self._spend is not None:
            self._spend.count(model_name, prompt_tokens, cached, generated)

    async def refreshed(self) -> None:
        """Read what is only read when somebody asks for it."""
        if self._neuron_monitor is not None:
            await self._neuron_monitor.refresh()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition that the `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class ObservedGeneration:
    """One answer on its way. timer: when what happened."""

    def __init__(
        self, metrics: Metrics, model_name: str, tenant: str, prompt_tokens: int, timer: GenerationTimer
    ) -> None:
        self._metrics = metrics
        self._model_name = model_name
        self._tenant = tenant
        self._prompt_tokens = prompt_tokens
        self.timer = timer

    def tokens(self, generated: int, queued: float) -> None:
        """As of GenerationTimer."""
        waited = self.timer.first is None
        self.timer.tokens(generated, queued)
        if waited and self.timer.first is not None:
            self._metrics.first_token_of(self._tenant)

    def ended(self, reason: str, cached: int, generated: int) -> None:
        """The answer is complete, or was given up: stop, length, abort or error."""
        if self.timer.first is None:
            self._metrics.first_token_of(self._tenant)
        self.timer.ended(reason)
        self._metrics.generation_ended(self._model_name, reason, self._prompt_tokens, cached, generated)


class _Waiting(Collector):
    """waiting: generations without a first token, by tenant."""

    def __init__(self, waiting: Mapping[str, int]) -> None:
        self._waiting = waiting

    def collect(self) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            "outcrop_requests_awaiting_first_token",
            "Generations that have been admitted and have no token yet.",
            labels=["tenant"],
        )
        for tenant, count in self._waiting.items():
            gauge.add_metric([tenant], count)
        yield gauge


class _EngineCollector(Collector):
    def __init__(self, engines: Mapping[str, EngineClient]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        replicas = [
            ((name, str(number)), replica)
            for name, engine in list(self._engines.items())
            for number, replica in enumerate(engine.replicas)
        ]
        figures = [(labels, replica.stats) for labels, replica in replicas]
        for metric, text, read in _GAUGES:
            gauge = GaugeMetricFamily(metric, text, labels=_REPLICA)
            for labels, stats in figures:
                gauge.add_metric(labels, read(stats))
            yield gauge
        for metric, text, read in _COUNTERS:
            counter = CounterMetricFamily(metric, text, labels=_REPLICA)
            for labels, stats in figures:
                counter.add_metric(labels, read(stats))
            yield counter
        restarts = CounterMetricFamily(
            "outcrop_engine_restarts", "Engine processes started anew after a death.", labels=_REPLICA
        )
        ready = GaugeMetricFamily("outcrop_engine_ready", "1 while an engine serves.", labels=_REPLICA)
        for labels, replica in replicas:
            restarts.add_metric(labels, replica.restarts)
            ready.add_metric(labels, replica.ready)
        yield restarts
        yield ready
        yield from self._routing()

    def _routing(self) -> Iterable[Metric]:
        routed = CounterMetricFamily(
            "outcrop_routed_requests",
            "Requests by what decided which replica they went to: prefix, session or load.",
            labels=["model_name", "reason"],
        )
        moved = CounterMetricFamily(
            "outcrop_moved_requests",
            "Requests that went on at another replica than they began at.",
            labels=["model_name"],
        )
        for name, engine in list(self._engines.items()):
            routing = engine.routing
            for reason in ("prefix", "session", "load"):
                routed.add_metric([name, reason], getattr(routing, reason))
            moved.add_metric([name], routing.moved)
        yield routed
        yield moved
