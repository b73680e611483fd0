"""optimum/neuron/vllm/plugin.py."""


def register() -> str:
    return "optimum.neuron.vllm.platform.OptimumNeuronPlatform"
