"""A stand-in for optimum-neuron's plug-in for vLLM: its rules, without a device.

Names and rules: optimum/neuron/vllm of huggingface/optimum-neuron v0.4.5.
"""
