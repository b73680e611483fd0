"""vllm_neuron/platform.py."""

from vllm.config import VllmConfig
from vllm.platforms import Platform


class NeuronPlatform(Platform):
    # It replaces ModelConfig.get_and_verify_max_len by what gives back the argument.
    derives_max_model_len = False

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        cache = vllm_config.cache_config
        if cache.num_gpu_blocks_override is not None:
            cache.num_gpu_blocks_override += 1  # the null block
        if vllm_config.parallel_config.worker_cls == "auto":
            vllm_config.parallel_config.worker_cls = "vllm_neuron.worker.neuron_worker.NeuronWorker"
        vllm_config.scheduler_config.max_num_batched_tokens = 131072
        if not cache.enable_prefix_caching:
            cache.block_size = vllm_config.model_config.max_model_len
        else:
            assert cache.block_size is not None, "When prefix caching is enabled, block_size must be set."
