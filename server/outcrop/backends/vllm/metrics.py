"""vLLM's own metrics as the figures of an engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Metric

from outcrop.engine.stats import EngineStats

_TOTALS = {
    "vllm:prefix_cache_queries": "prefix_queries",
    "vllm:prefix_cache_hits": "prefix_hits",
    "vllm:prompt_tokens": "prompt_tokens",
    "vllm:generation_tokens": "generation_tokens",
    "vllm:num_preemptions": "preemptions",
    "vllm:spec_decode_num_draft_tokens": "drafted_tokens",
    "vllm:spec_decode_num_accepted_tokens": "accepted_tokens",
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
}
"""Metrics of vllm/v1/metrics/loggers.py, 0.11 to 0.32, by the field of EngineStats that counts the same."""

_USAGE = "vllm:kv_cache_usage_perc"
_CACHE_CONFIG = "vllm:cache_config_info"


def engine_stats(metrics: Iterable[Metric]) -> EngineStats:
    """Sums over the engines of one server. What vLLM does not count stays 0."""
    found = {metric.name: metric for metric in metrics}
    values = {field: int(_sum(found, name)) for name, field in _TOTALS.items()}
    blocks = _blocks(found)
    used = round(_sum(found, _USAGE) * blocks)
    return EngineStats(kv_blocks_total=blocks, kv_blocks_used=used, **values)


def _sum(metrics: Mapping[str, Metric], name: str) -> float:
    metric = metrics.get(name)
    if metric is None:
        return 0.0
    return sum(sample.value for sample in metric.samples if sample.name in (name, f"{name}_total"))


def _blocks(metrics: Mapping[str, Metric]) -> int:
    metric = metrics.get(_CACHE_CONFIG)
    found = [sample.labels.get("num_gpu_blocks", "") for sample in metric.samples] if metric else []
    return sum(int(blocks) for blocks in found if blocks.isdigit())
