"""Which kernels a step calls, and with what: as the model's own forward pass says, on tensors without
numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from outcrop_compile.artifact.kernels import built_with
from outcrop_compile.graph import Graph
from outcrop_compile.hlo.parameters import model_weights
from outcrop_compile.hlo.record import Sizes
from outcrop_compile.llama import KVSizes, PagedLlama, TensorParallel
from outcrop_kernels.nki.operations import Call
from outcrop_kernels.registry import operations

_META = torch.device("meta")


def kernel_calls(sizes: Sizes, graph: Graph) -> list[Call]:
    """Those of one rank in a step, in order, with tensors of device meta. Raises ShardingError."""
    found: list[Call] = []

    def note(call: Call) -> Any:
        found.append(call)
        results = [torch.empty(shape, dtype=getattr(torch, dtype)) for shape, dtype in call.made()]
        return results[0] if len(results) == 1 else tuple(results)

    kernels, gather = built_with(sizes.kernels)
    ops = replace(operations("neuron", kernels, gather=gather, caller=note), kv_pool=_pool)
    with _META, torch.no_grad():
        model = PagedLlama(
            sizes.config,
            model_weights(sizes, lambda name, shape, dtype: torch.empty(shape, dtype=dtype)),
            KVSizes(sizes.num_blocks, sizes.block_size, sizes.max_rows),
            ops,
            max_positions=sizes.max_positions,
            parallel=_alike(sizes.tp),
        )
        inputs = graph.inputs(sizes.config.vocab_size)
        model(**{one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype)) for one in inputs})
    return found


def _pool(blocks: int, block_size: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(blocks, block_size, kv_heads, dim, dtype=dtype)


def _alike(world: int) -> TensorParallel:
    """Ranks of which each has what this one has."""
    return TensorParallel(0, world, lambda tensor: tensor, lambda tensor: torch.cat([tensor] * world, dim=-1))
