"""Binds the compiler by name, as NxD's module does (src/neuronx_distributed/trace/functions.py)."""

from libneuronxla import neuron_xla_compile

__all__ = ["neuron_xla_compile"]
