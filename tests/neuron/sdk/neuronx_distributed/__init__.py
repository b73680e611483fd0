"""Stands in for neuronx-distributed: its NxDModel (src/neuronx_distributed/trace/nxd_model/nxd_model.py),
whose graphs the CPU runs.

Faults to inject are in the file that FAKE_NEURON_FAULTS names: a JSON list with an entry for each process
that loads, which is a list of faults and is taken out of the file.
"""

import json
import os
from pathlib import Path
from typing import Any

from fake_neuron import CpuDevice, FakeExecution, Fault, parameters
from torch import Tensor

from outcrop_compile.artifact import open_artifact


class NxDModel:
    """Only what Outcrop calls, with the original's argument names."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self.manifest = open_artifact(folder).manifest
        self.local_ranks_size = ranks
        self._weights: list[dict[str, Tensor]] = []
        self._device: CpuDevice | None = None

    @classmethod
    def load(
        cls, path_to_model: str, start_rank: int | None = None, local_ranks_size: int | None = None
    ) -> "NxDModel":
        if start_rank != 0 or local_ranks_size is None:
            raise AssertionError(f"{start_rank=} {local_ranks_size=}")
        return cls(Path(path_to_model).parent, local_ranks_size)

    def set_weights(self, sharded_checkpoint: list[dict[str, Tensor]]) -> None:
        if len(sharded_checkpoint) != self.local_ranks_size:
            raise ValueError("one state dict for each rank")
        self._weights = sharded_checkpoint

    def to_neuron(self) -> None:
        faults = _faults()
        if faults and faults[0].at == 0:
            raise RuntimeError(f"Could not load the model status={faults[0].code} message=injected")
        self._device = CpuDevice(self.manifest, [parameters(each) for each in self._weights])
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
        running = self._device.execute(model_name, {name: ranked[0] for name, ranked in inputs.items()})
        count = len(self._device.graphs[model_name].outputs)
        return [[_Buffer(running, place)] * self.local_ranks_size for place in range(count)]


class _Buffer:
    def __init__(self, running: FakeExecution, place: int) -> None:
        self._running, self._place = running, place

    def cpu(self) -> Tensor:
        import torch

        return torch.from_numpy(self._running.wait()[self._place])


def _faults() -> list[Fault]:
    if (named := os.environ.get("FAKE_NEURON_FAULTS")) is None:
        return []
    path = Path(named)
    first, *rest = json.loads(path.read_text()) or [[]]
    path.write_text(json.dumps(rest))
    return [Fault(**each) for each in first]
