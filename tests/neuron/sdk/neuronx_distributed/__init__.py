"""Stands in for neuronx-distributed: its NxDModel (src/neuronx_distributed/trace/nxd_model/nxd_model.py),
whose graphs the CPU runs.

Faults to inject are in the file that FAKE_NEURON_FAULTS names: a JSON list with an entry for each process
that loads, which is a list of faults and is taken out of the file.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_neuron import CpuDevice, FakeExecution, Fault, parameters
from torch import Tensor

from neuronx_distributed.trace.model_builder_utils import (
    CompilationArtifacts,
    ModelParamInfo,
    TraceArtifacts,
)
from outcrop_compile.artifact import open_artifact
from outcrop_compile.artifact.manifest import NAME


@dataclass
class _Graph:
    neff: bytes
    metaneff: Any
    read: list[str]


class NxDModel:
    """Only what Outcrop calls, with the original's argument names."""

    def __init__(self, world_size: int) -> None:
        self.world_size = self.local_ranks_size = world_size
        self.graphs: dict[str, _Graph] = {}
        self.model_params: list[ModelParamInfo] = []
        self._routes: dict[str, list[str]] = {}
        self._folder = Path()
        self._weights: list[dict[str, Tensor]] = []
        self._device: CpuDevice | None = None

    def add(
        self, key: str, trace_artifacts: TraceArtifacts, compilation_artifacts: CompilationArtifacts
    ) -> "NxDModel":
        provided, flattener = trace_artifacts.provided_args, trace_artifacts.flattener
        assert isinstance(flattener.layout, tuple)
        names = [each.param_name for each in provided]
        read = [names[place] for place in flattener.layout if place not in (flattener.exclude or ())]
        self.graphs[key] = _Graph(compilation_artifacts.get_neff_bytes(), trace_artifacts.metaneff, read)
        self.model_params = self.model_params or trace_artifacts.model_params
        assert self.model_params == trace_artifacts.model_params
        route = _route({each.param_name: each.tensor for each in provided})
        self._routes.setdefault(route, []).append(key)
        neff = Path(compilation_artifacts.neff_filepath)
        self._folder = next(folder for folder in neff.parents if (folder / NAME).exists())
        return self

    def set_weights(self, sharded_checkpoint: list[dict[str, Tensor]]) -> None:
        if len(sharded_checkpoint) != self.local_ranks_size:
            raise ValueError("one state dict for each rank")
        self._weights = sharded_checkpoint

    def to_neuron(self) -> None:
        faults = _faults()
        if faults and faults[0].at == 0:
            raise RuntimeError(f"Could not load the model status={faults[0].code} message=injected")
        manifest = open_artifact(self._folder).manifest
        self._device = CpuDevice(manifest, [parameters(each) for each in self._weights])
        self._device.faults.coming.extend(faults)

    def read_from_neuron_buffer(self, buffer_key: str, rank: int) -> Tensor:
        assert self._device is not None
        return self._device.models[rank].get_buffer(buffer_key).clone()

    def write_to_neuron_buffer(self, tensor: Tensor, buffer_key: str, rank: int) -> None:
        assert self._device is not None
        self._device.models[rank].get_buffer(buffer_key).copy_(tensor)

    def __call__(
        self, *, model_name: str | None = None, forward_mode: str = "default", **inputs: list[Tensor]
    ) -> list[list[Any]]:
        """Outputs [output][rank]: buffers that are read with `.cpu()`."""
        if self._device is None:
            raise RuntimeError("Model not initialized. Call set_weights() followed by to_neuron()")
        assert forward_mode == "async"
        assert model_name is not None
        assert all(len(ranked) == self.local_ranks_size for ranked in inputs.values())
        own = {name: ranked[0] for name, ranked in inputs.items()}
        ordered = {
            each.param_name: own[each.param_name] for each in self.model_params if each.param_name in own
        }
        assert len(ordered) == len(own)
        assert model_name in self._routes[_route(ordered)]
        assert all(each.param_name in own for each in self.model_params if each.is_positional)
        running = self._device.execute(model_name, own)
        count = len(self._device.graphs[model_name].outputs)
        return [[_Buffer(running, place)] * self.local_ranks_size for place in range(count)]


class _Buffer:
    def __init__(self, running: FakeExecution, place: int) -> None:
        self._running, self._place = running, place

    def cpu(self) -> Tensor:
        import torch

        return torch.from_numpy(self._running.wait()[self._place])


def _route(inputs: dict[str, Tensor]) -> str:
    return ", ".join(f"{name}: {list(tensor.shape)}" for name, tensor in inputs.items())


def _faults() -> list[Fault]:
    if (named := os.environ.get("FAKE_NEURON_FAULTS")) is None:
        return []
    path = Path(named)
    first, *rest = json.loads(path.read_text()) or [[]]
    path.write_text(json.dumps(rest))
    return [Fault(**each) for each in first]
