"""`nki.isa` as the simulator has it: what SDK 2.28 to 2.32 all have and NeuronCore-v2 executes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from outcrop_kernels.nki.simulator.dma import dma_copy
from outcrop_kernels.nki.simulator.enums import (
    dge_mode,
    engine,
    matmul_perf_mode,
    nc_version,
    oob_mode,
    reduce_cmd,
)
from outcrop_kernels.nki.simulator.gpsimd_engine import affine_select, iota, nc_n_gather
from outcrop_kernels.nki.simulator.rules import refuse_name
from outcrop_kernels.nki.simulator.scalar_engine import activation, activation_reduce
from outcrop_kernels.nki.simulator.tensor_engine import nc_matmul, nc_transpose
from outcrop_kernels.nki.simulator.vector_engine import (
    memset,
    reciprocal,
    scalar_tensor_tensor,
    tensor_copy,
    tensor_copy_predicated,
    tensor_reduce,
    tensor_scalar,
    tensor_scalar_reduce,
    tensor_tensor,
)
from outcrop_kernels.nki.simulator.vector_scan import (
    bn_aggr,
    bn_stats,
    nc_stream_shuffle,
    tensor_tensor_scan,
)
from outcrop_kernels.nki.simulator.vector_search import max8, nc_find_index8, nc_match_replace8

__all__ = [
    "activation",
    "activation_reduce",
    "affine_select",
    "bn_aggr",
    "bn_stats",
    "dge_mode",
    "dma_copy",
    "engine",
    "get_nc_version",
    "iota",
    "matmul_perf_mode",
    "max8",
    "memset",
    "nc_find_index8",
    "nc_match_replace8",
    "nc_matmul",
    "nc_n_gather",
    "nc_stream_shuffle",
    "nc_transpose",
    "nc_version",
    "oob_mode",
    "reciprocal",
    "reduce_cmd",
    "scalar_tensor_tensor",
    "tensor_copy",
    "tensor_copy_predicated",
    "tensor_reduce",
    "tensor_scalar",
    "tensor_scalar_reduce",
    "tensor_tensor",
    "tensor_tensor_scan",
]


def get_nc_version() -> nc_version:
    return nc_version.gen2


_LATER_CHIP = {
    "range_select": "nisa.iota, nisa.tensor_scalar with a comparison, and nisa.tensor_copy_predicated",
    "exponential": "nisa.activation(op=nl.exp)",
    "activate2": "nisa.tensor_scalar and nisa.activation",
    "nc_matmul_mx": "nisa.nc_matmul",
    "quantize_mx": "int8 or bfloat16",
    "rand2": "random numbers from the host",
    "rand_get_state": "random numbers from the host",
    "rand_set_state": "random numbers from the host",
    "topk": "nisa.max8, nisa.nc_find_index8 and nisa.nc_match_replace8",
    "sendrecv": "the graph's collectives",
    "core_barrier": "one core",
    "dma_transpose": "nisa.nc_transpose",
}
"""Of NeuronCore-v3 or v4, or with forms that v2 lacks: what to use instead."""


if not TYPE_CHECKING:  # mypy is to know the names that there are.

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _LATER_CHIP:
            refuse_name("later-chip", f"nisa.{name}: use {_LATER_CHIP[name]}")
        refuse_name("subset", f"nisa.{name} is not among the simulated instructions")
