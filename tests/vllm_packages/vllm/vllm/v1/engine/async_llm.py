"""vllm/v1/engine/async_llm.py: the engine, over Outcrop's own scheduler."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from importlib import import_module
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from outcrop.backends.base import Capabilities
from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.engine.in_process import InProcessClient
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest
from outcrop.engine.messages import SamplingParams as OwnParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.outputs import CompletionOutput, RequestOutput, RequestStateStats
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.surface import require
from vllm.v1.engine.exceptions import EngineDeadError

VOCABULARY = 1000
EOS = 0
"""Of the model's configuration."""

POISON = "VLLM_STAND_IN_POISON"
"""The environment variable with a token that is the engine's death."""

_REASONS = {FinishReason.EOS: "stop", FinishReason.LENGTH: "length", FinishReason.CONTEXT: "length"}


class AsyncLLM:
    def __init__(self, vllm_config: VllmConfig) -> None:
        self.vllm_config, self.model_config = vllm_config, vllm_config.model_config
        module, _, name = vllm_config.parallel_config.worker_cls.rpartition(".")
        self._worker = getattr(import_module(module), name)(vllm_config)
        cache, length = vllm_config.cache_config, self.model_config.max_model_len
        assert isinstance(length, int)
        assert isinstance(cache.block_size, int)
        rows = vllm_config.scheduler_config.max_num_seqs
        blocks = cache.num_gpu_blocks_override or -(-length // cache.block_size) * rows
        sizes = Capabilities(rows, cache.block_size, blocks, length, VOCABULARY, topk_cap=256, depth=1)
        backend = FakeBackend(sizes, FakeHooks(step_seconds=lambda step: 0.002))
        self._core = InProcessClient(backend, prefix_cache=cache.enable_prefix_caching)
        self._requests: set[str] = set()
        self._dead = False
        REGISTRY.register(self)  # type: ignore[arg-type]

    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs) -> AsyncLLM:
        return cls(engine_args.create_engine_config())

    @property
    def errored(self) -> bool:
        return self._dead

    def shutdown(self) -> None:
        self._dead = True

    async def generate(
        self, prompt: dict[str, Any], sampling_params: SamplingParams, request_id: str, **more: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        require("vllm.v1.engine.async_llm.AsyncLLM.generate", more)
        require("vllm.inputs.TokensPrompt", prompt)
        tokens = prompt["prompt_token_ids"]
        if request_id in self._requests:
            raise ValueError(f"Request id {request_id} already running.")
        if max(tokens) >= VOCABULARY and str(max(tokens)) != os.environ.get(POISON):
            raise ValueError(f"Token id {max(tokens)} is out of vocabulary")
        if len(tokens) >= self._core.max_model_len:
            raise ValueError("The decoder prompt is longer than the maximum model length")
        if more.get("priority") and self.vllm_config.scheduler_config.policy != "priority":
            raise ValueError("Got priority but Priority scheduling is not enabled.")
        assert sampling_params.output_kind is RequestOutputKind.DELTA
        assert not sampling_params.detokenize
        self._worker.check(sampling_params)
        await self._core.start()
        self._requests.add(request_id)
        wanted = _own(request_id, prompt, sampling_params, -more.get("priority", 0))
        try:
            self._live(tokens)
            async with aclosing(self._core.generate(wanted)) as deltas:
                async for delta in deltas:
                    self._live(tokens)
                    yield _output(request_id, tokens, sampling_params, delta)
        finally:
            self._requests.discard(request_id)

    def _live(self, tokens: list[int]) -> None:
        self._dead = self._dead or str(max(tokens)) == os.environ.get(POISON)
        if self._dead:
            raise EngineDeadError

    def collect(self) -> Iterator[Metric]:
        """vllm/v1/metrics/loggers.py: PrometheusStatLogger's metrics, with its labels."""
        stats, labels = self._core.stats, ("model_name", "engine")
        values = (self.model_config.model, "0")
        used = stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0
        for gauge, value in (
            ("num_requests_running", stats.running),
            ("num_requests_waiting", stats.waiting),
            ("kv_cache_usage_perc", used),
        ):
            family = GaugeMetricFamily(f"vllm:{gauge}", "", labels=labels)
            family.add_metric(values, value)
            yield family
        for counter, total in (
            ("prefix_cache_queries", stats.prefix_queries),
            ("prefix_cache_hits", stats.prefix_hits),
            ("prompt_tokens", stats.prompt_tokens),
            ("generation_tokens", stats.generation_tokens),
            ("num_preemptions", stats.preemptions),
        ):
            count = CounterMetricFamily(f"vllm:{counter}", "", labels=labels)
            count.add_metric(values, total)
            yield count
        info = GaugeMetricFamily("vllm:cache_config_info", "", labels=("engine", "num_gpu_blocks"))
        info.add_metric(("0", str(stats.kv_blocks_total)), 1)
        yield info


def _own(request_id: str, prompt: dict[str, Any], params: SamplingParams, priority: int) -> GenerationRequest:
    ends = [*params.stop_token_ids, *([] if params.ignore_eos else [EOS])]
    most = 1 << 20 if params.max_tokens is None else params.max_tokens
    sampling = OwnParams(
        most,
        params.temperature,
        params.top_p,
        max(params.top_k, 0),
        eos_ids=tuple(ends),
        seed=params.seed or 0,
    )
    return GenerationRequest(
        request_id, prompt["prompt_token_ids"], sampling, priority, prompt.get("cache_salt") or ""
    )


def _output(
    request_id: str, prompt: list[int], params: SamplingParams, delta: GenerationDelta
) -> RequestOutput:
    """A token that ends the answer is the last of it, as vLLM tells it."""
    tokens = list(delta.tokens)
    stopped = delta.finish is FinishReason.EOS
    if stopped:
        tokens.append((params.stop_token_ids or [EOS])[0])
    reason = None if delta.finish is None else _REASONS[delta.finish]
    completion = CompletionOutput(0, "", tokens, None, None, reason, tokens[-1] if stopped else None)
    return RequestOutput(
        request_id, None, prompt, None, [completion], reason is not None,
        RequestStateStats(time.monotonic()), delta.cached,
    )  # fmt: skip
