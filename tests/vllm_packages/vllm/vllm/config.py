"""vllm/config: what an engine is built of, in the parts that plug-ins look at and change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm.surface import Arguments


class StructuredOutputsConfig(Arguments):
    NAME = "vllm.config.StructuredOutputsConfig"


@dataclass
class ModelConfig:
    model: str
    max_model_len: int | None
    dtype: str
    seed: int


@dataclass
class CacheConfig:
    block_size: int | None
    enable_prefix_caching: bool
    num_gpu_blocks_override: int | None


@dataclass
class SchedulerConfig:
    max_num_seqs: int
    max_num_batched_tokens: int
    policy: str


@dataclass
class ParallelConfig:
    tensor_parallel_size: int
    worker_cls: str = "auto"
    distributed_executor_backend: str | None = None

    @property
    def world_size(self) -> int:
        return self.tensor_parallel_size


@dataclass
class VllmConfig:
    model_config: ModelConfig
    cache_config: CacheConfig
    scheduler_config: SchedulerConfig
    parallel_config: ParallelConfig
    lora_config: Any = None
    speculative_config: Any = None
    additional_config: dict[str, Any] = field(default_factory=dict)
