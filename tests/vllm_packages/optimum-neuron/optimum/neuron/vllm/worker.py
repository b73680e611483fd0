"""optimum/neuron/vllm/worker.py, model_loader.py and runner.py: what a folder was compiled for, and what of a
request the sampler looks at."""

import json
from pathlib import Path

from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams


class OptimumNeuronWorker:
    def __init__(self, vllm_config: VllmConfig) -> None:
        assert vllm_config.lora_config is None, "LoRA is not supported for optimum-neuron framework."
        assert vllm_config.speculative_config is None
        compiled = json.loads((Path(vllm_config.model_config.model) / "neuron_config.json").read_text())
        if vllm_config.scheduler_config.max_num_seqs > compiled["batch_size"]:
            raise ValueError(
                f"max_num_seqs ({vllm_config.scheduler_config.max_num_seqs}) exceeds the compiled model "
                f"batch_size ({compiled['batch_size']})."
            )
        # Nothing in the plug-in checks these two; the graphs would be given other shapes than theirs.
        assert vllm_config.model_config.max_model_len == compiled["sequence_length"]
        assert vllm_config.parallel_config.tensor_parallel_size == compiled["tp_degree"]

    def check(self, params: SamplingParams) -> None:
        """The sampler is given neither generators nor logits processors, and no log probabilities come back;
        on the device it takes top_k, top_p and temperature alone."""
        assert params.structured_outputs is None
        assert params.logprobs is None
        assert not params.logit_bias
        assert (params.min_p, params.presence_penalty, params.frequency_penalty) == (0, 0, 0)
        assert params.repetition_penalty == 1
