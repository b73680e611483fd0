"""The model as it is traced: its shapes are a shard's, its numbers are zeros that take no memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from outcrop_compile.checkpoint.safetensors_file import read_tensors
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import Graph, TensorSpec
from outcrop_compile.llama import KVSizes, PagedLlama, TensorParallel
from outcrop_compile.shards import model_weights
from outcrop_kernels.registry import Operations
from outcrop_kernels.zeros import untouched_zeros

_STATES = frozenset({"key_pool", "value_pool", "last_token"})
_TYPES = {"F32": "float32", "BF16": "bfloat16", "I8": "int8"}


def shard_tensors(path: Path) -> dict[str, TensorSpec]:
    """What a shard holds, of its header alone. Raises CheckpointError."""
    return {name: TensorSpec(name, one.shape, _TYPES[one.dtype]) for name, one in read_tensors(path).items()}


def traced_model(
    config: LlamaConfig,
    shard: dict[str, TensorSpec],
    kv: KVSizes,
    operations: Operations,
    *,
    max_positions: int,
    parallel: TensorParallel,
) -> PagedLlama:
    """A rank's model, all of whose weights are parameters under the shard's names, so that NxD asks for them
    when it loads, and whose states are buffers, which it makes itself.

    shard: of `shard_tensors`. A graph is the same for all ranks, so any rank's will do.
    """
    weights = model_weights({name: _zeros(spec) for name, spec in shard.items()})
    model = PagedLlama(config, weights, kv, operations, max_positions=max_positions, parallel=parallel)
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name not in _STATES:
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
    return model.eval()


def states_of(model: PagedLlama) -> tuple[TensorSpec, ...]:
    """What stays on the device between steps, by the names of the model's buffers."""
    return tuple(
        TensorSpec(name, tuple(buffer.shape), str(buffer.dtype).removeprefix("torch."))
        for name, buffer in model.named_buffers()
    )


def example_inputs(graph: Graph, vocab_size: int) -> dict[str, Tensor]:
    """A step of zeros, by name and in order."""
    return {spec.name: _zeros(spec) for spec in graph.inputs(vocab_size)}


def _zeros(spec: TensorSpec) -> Tensor:
    return untouched_zeros(spec.shape, getattr(torch, spec.dtype))
