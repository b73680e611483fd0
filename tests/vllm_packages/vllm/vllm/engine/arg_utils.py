"""vllm/engine/arg_utils.py: the arguments of an engine, made into its configuration by the platform too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from vllm.config import CacheConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig
from vllm.platforms import current_platform
from vllm.surface import Arguments

_ROWS, _TOKENS = 256, 2048
"""Of an engine that is told neither."""


class AsyncEngineArgs(Arguments):
    NAME = "vllm.engine.arg_utils.AsyncEngineArgs"
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "dtype": "auto", "seed": 0, "tensor_parallel_size": 1, "scheduling_policy": "fcfs",
        "enable_lora": False, "additional_config": {},
    }  # fmt: skip

    def create_engine_config(self) -> VllmConfig:
        # V1 turns both on for models that generate, unless it is told otherwise.
        caching = True if self.enable_prefix_caching is None else self.enable_prefix_caching
        config = VllmConfig(
            ModelConfig(self.model, self.max_model_len, self.dtype, self.seed),
            CacheConfig(self.block_size, caching, self.num_gpu_blocks_override),
            SchedulerConfig(
                self.max_num_seqs or _ROWS, self.max_num_batched_tokens or _TOKENS, self.scheduling_policy
            ),
            ParallelConfig(self.tensor_parallel_size),
            lora_config=(self.max_loras, self.max_lora_rank) if self.enable_lora else None,
            speculative_config=self.speculative_config,
            additional_config=self.additional_config,
        )
        if config.model_config.max_model_len is None and current_platform.derives_max_model_len:
            read = json.loads((Path(self.model) / "config.json").read_text())
            config.model_config.max_model_len = read["max_position_embeddings"]
        current_platform.check_and_update_config(config)
        return config
