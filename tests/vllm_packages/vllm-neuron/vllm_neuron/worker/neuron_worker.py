"""vllm_neuron/worker: what is compiled, and what of a request the device looks at."""

from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams


class NeuronWorker:
    def __init__(self, vllm_config: VllmConfig) -> None:
        cache, rows = vllm_config.cache_config, vllm_config.scheduler_config.max_num_seqs
        length = vllm_config.model_config.max_model_len
        assert length, "NxD Inference compiles for a length"
        # The guide's known issue 2: other counts than what is compiled are out of bounds.
        assert cache.num_gpu_blocks_override is not None
        told = cache.num_gpu_blocks_override - 1
        if cache.enable_prefix_caching:
            assert told >= -(-length // cache.block_size) * rows
        else:
            assert told == rows

    def check(self, params: SamplingParams) -> None:
        """get_nxd_sampling_params takes top_k, top_p and temperature alone: whatever else a request asks for
        would be left out without a word."""
        assert params.structured_outputs is None
        assert params.logprobs is None
        assert not params.logit_bias
        assert (params.min_p, params.presence_penalty, params.frequency_penalty) == (0, 0, 0)
        assert params.repetition_penalty == 1
