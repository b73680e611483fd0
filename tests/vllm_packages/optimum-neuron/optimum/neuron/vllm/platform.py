"""optimum/neuron/vllm/platform.py."""

from vllm.config import VllmConfig
from vllm.platforms import Platform


class OptimumNeuronPlatform(Platform):
    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        if vllm_config.parallel_config.worker_cls == "auto":
            vllm_config.parallel_config.worker_cls = "optimum.neuron.vllm.worker.OptimumNeuronWorker"
        vllm_config.cache_config.enable_prefix_caching = False
        length = vllm_config.model_config.max_model_len
        vllm_config.cache_config.block_size = length
        scheduler = vllm_config.scheduler_config
        scheduler.max_num_batched_tokens = max(scheduler.max_num_batched_tokens, length or 0)
