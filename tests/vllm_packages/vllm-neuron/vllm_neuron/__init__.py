"""A stand-in for the plug-in vllm-neuron: its rules, without a device.

Names and rules: vllm_neuron/__init__.py, platform.py and worker/ of vllm-project/vllm-neuron 0.2, and the
vLLM User Guide for NxD Inference of Neuron SDK 2.28.1, which is 0.4.1's.
"""


def register() -> str:
    return "vllm_neuron.platform.NeuronPlatform"
