"""A stand-in for vLLM as its plug-ins for NeuronCores have it: its surface, over Outcrop's own scheduler and
a model without weights.

Which arguments there are, of each version, is read from `surface/*.toml`, lists made from vLLM's published
source, which `python -m tests.neuron.contracts --list` checks against a checkout. What a plug-in does with a
request, and what it cannot, is in the stand-ins for the plug-ins.
"""

from __future__ import annotations

from importlib import metadata

from vllm.sampling_params import SamplingParams

__version__ = metadata.version("vllm")
__all__ = ["SamplingParams"]
