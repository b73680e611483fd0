"""What the plug-in vllm-neuron has to be told of sizes, which vLLM leaves to others on other devices.

It compiles the model for one context and one number of requests, and NxD Inference writes out of bounds where
vLLM's scheduler counts other KV blocks than were compiled (AWS's vLLM User Guide for NxD Inference, SDK
2.28.1, "Known Issues"; `check_and_update_config` in vllm_neuron/platform.py). Not yet run on a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BLOCK = 32
"""Tokens of a KV block, where the prefix cache is on and no size is given; the guide recommends 32 or 16."""


def neuron_plugin_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs that are missing in those that are given. Raises ValueError where the
    sizes to compile for are among them."""
    length, rows = given.get("max_model_len"), given.get("max_num_seqs")
    if not (length and rows):
        raise ValueError(
            "max_model_len and max_rows: vllm-neuron compiles the model for so many tokens of context and so "
            "many requests at once; give both"
        )
    found = {"num_gpu_blocks_override": rows}  # without a prefix cache a block is a whole context
    if given["enable_prefix_caching"]:
        block = given.get("block_size") or _BLOCK
        found = {"block_size": block, "num_gpu_blocks_override": -(-length // block) * rows}
    return {name: value for name, value in found.items() if not given.get(name)}
