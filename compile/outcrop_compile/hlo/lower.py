"""The model's graphs as HLO, made by torch_xla on a CPU: no Neuron device, no SDK, and no weights.

torch_xla traces lazily: what `PagedLlama.forward` does to placeholders becomes the graph, its parameters
being the placeholders that it has read. What neuronx-cc makes of these graphs: not yet run on a device.

torch_xla 2.9's own functions are used where they are the only way: `_get_xla_tensors_hlo_proto`,
`_get_tensors_xla_device_data_node` (as torch_xla/stablehlo.py does), `_xla_all_reduce`, `_xla_all_gather` (as
torch_xla/core/xla_model.py does).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from outcrop_compile.artifact.kernels import built_with
from outcrop_compile.graph import Graph
from outcrop_compile.hlo.parameters import model_weights
from outcrop_compile.hlo.record import GraphRecord, Output, Parameter, Sizes
from outcrop_compile.hlo.rewrite import finished
from outcrop_compile.llama import KVSizes, PagedLlama, TensorParallel
from outcrop_kernels.nki import stand_in
from outcrop_kernels.registry import operations

os.environ.setdefault("PJRT_DEVICE", "CPU")
os.environ.setdefault("XLA_HLO_DEBUG", "1")  # instructions know the line of the model that they come from
import torch_xla
from torch_xla.core.xla_builder import create_placeholder_tensor

_XLA = torch_xla._XLAC
# Numbers in the model are the graph's constants; left alone, torch_xla passes most of them as parameters.
_XLA._set_xla_all_numbers_special_scalars(True)


class LoweringError(RuntimeError):
    """The model did something that is no part of a graph."""


def collectives(world: int) -> TensorParallel:
    """The collectives of one rank among `world`, as instructions. All ranks run the same graph, so it does
    not matter whose this is."""
    if world == 1:
        return TensorParallel()
    groups = [list(range(world))]

    def all_reduce(tensor: Tensor) -> Tensor:
        result: Tensor = _XLA._xla_all_reduce("sum", tensor, 1.0, groups, True)
        return result

    def all_gather(tensor: Tensor) -> Tensor:
        last = tensor.dim() - 1
        result: Tensor = _XLA._xla_all_gather(tensor, last, world, groups, True, None, None)
        return result

    return TensorParallel(0, world, all_reduce, all_gather)


class Lowering:
    """Lowers the graphs of one model."""

    def __init__(self, sizes: Sizes) -> None:
        """Raises ShardingError."""
        self.sizes = sizes
        weights = model_weights(
            sizes, lambda name, shape, dtype: torch.empty(shape, dtype=dtype, device="meta")
        )
        kernels, gather = built_with(sizes.kernels)
        # On a CPU the pools take no memory until they are written, and here nothing writes them.
        self.model = PagedLlama(
            sizes.config,
            weights,
            KVSizes(sizes.num_blocks, sizes.block_size, sizes.max_rows),
            operations("neuron", kernels, gather=gather, caller=stand_in.call),
            max_positions=sizes.max_positions,
            parallel=collectives(sizes.tp),
        )
        self._buffers = {name: (buffer.shape, buffer.dtype) for name, buffer in self.model.named_buffers()}

    def lower(self, graph: Graph) -> tuple[bytes, GraphRecord]:
        """An HloModuleProto, and what its parameters and outputs are."""
        # Collectives are ordered by a token, which would tie this graph to the one before.
        _XLA._set_all_reduce_token(_XLA._xla_get_default_device(), None)
        placed: dict[str, Tensor] = {}
        for name, (shape, dtype) in self._buffers.items():
            placed[name] = create_placeholder_tensor(shape, dtype)
            set_buffer(self.model, name, placed[name])
        inputs = {
            one.name: create_placeholder_tensor(one.shape, getattr(torch, one.dtype))
            for one in graph.inputs(self.sizes.config.vocab_size)
        }
        with torch.no_grad():
            tokens, finite = self.model(**inputs)
        states = {name: new for name, new in self.model.named_buffers() if new is not placed[name]}
        outputs = {"tokens": tokens, "finite": finite} | states
        known = {_XLA._xla_get_tensor_id(tensor): name for name, tensor in (placed | inputs).items()}
        read, _ = _XLA._get_tensors_xla_device_data_node(list(outputs.values()))
        names = [known.get(number) for number in read]
        missing = states.keys() - set(names)
        if missing:
            raise LoweringError(f"the graph replaces {', '.join(sorted(missing))} without reading it")
        hlo = finished(
            _XLA._get_xla_tensors_hlo_proto(list(outputs.values())),
            names,
            {place: name for place, name in enumerate(outputs) if name in states},
        )
        order = [name for name in names if name is not None]
        return hlo, GraphRecord(
            bucket=graph.bucket,
            variant=graph.variant,
            sizes=self.sizes,
            parameters=tuple(_parameters(order, placed | inputs, inputs, states)),
            outputs=tuple(
                Output(name, tuple(one.shape), _dtype(one), order.index(name) if name in states else None)
                for name, one in outputs.items()
            ),
            versions={"torch": str(torch.__version__), "torch_xla": str(torch_xla.__version__)},
        )


def _parameters(
    order: list[str], tensors: dict[str, Tensor], inputs: dict[str, Tensor], states: dict[str, Tensor]
) -> Iterator[Parameter]:
    for name in order:
        role = "input" if name in inputs else "state" if name in states else "weight"
        yield Parameter(name, role, tuple(tensors[name].shape), _dtype(tensors[name]))  # type: ignore[arg-type]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def set_buffer(model: nn.Module, path: str, value: Tensor) -> None:
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, value)
