"""The one place where Outcrop touches the Neuron runtime: torch-neuronx 2.9 and the NxDModel of NxD Core.

Everything above it sees `Runtime`, so a stand-in of this module, which runs the graphs on a CPU, drives all
the rest in tests. Names and behaviour are those of neuronx-distributed 0.17 to 0.19
(src/neuronx_distributed/trace/nxd_model/nxd_model.py). Not yet run on a device.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from outcrop.backends.base import Progress
from outcrop.backends.neuron.cores import VISIBLE_CORES, format_cores
from outcrop_compile.artifact import Artifact, CompiledBucket
from outcrop_compile.llama import PagedLlama
from outcrop_compile.sdk import DEFAULT_RELEASE, RELEASES
from outcrop_kernels.zeros import untouched_zeros

Outputs = tuple[npt.NDArray[np.int32], ...]

_PACKAGES = ("torch_neuronx", "neuronx_distributed", "libneuronxla", "torch_xla")
_PLACEHOLDER = "WRONG PACKAGE"
"""How the packages that PyPI has under these names end their import."""

_ENVIRONMENT = {
    # Steps take milliseconds; the runtime's own default lets a hung one go on for longer than clients wait.
    "NEURON_RT_EXEC_TIMEOUT": "30",
    # The same request has to give the same tokens.
    "NEURON_RT_STOCHASTIC_ROUNDING_EN": "0",
}
"""What the runtime is told, where the operator has not said otherwise, beside the process's name in
neuron-monitor."""


class NeuronUnavailable(OSError):
    """The SDK, or the cores, are not to be had; the message says what to do."""


class CompilationForbidden(RuntimeError):
    """Something wanted to compile after warm-up."""


class Execution(Protocol):
    """One submitted step."""

    def wait(self) -> Outputs:
        """Its outputs in the order of the graph's, on the host. Raises RuntimeError with `status=CODE` in
        its text as torch-neuronx does; may be called again then."""


class Runtime(Protocol):
    """The graphs of an artifact on the cores of one replica. Executions run in the order of `execute`."""

    compilations: int
    """How many were asked for since `forbid_compilation`."""

    def execute(self, tag: str, inputs: Mapping[str, Tensor]) -> Execution:
        """Queue a graph on every rank; returns at once. inputs: by name, in the order of the graph's
        signature, static shapes, int32 and float32 on the host. They are not written to until `wait` is over.
        Raises RuntimeError as `Execution.wait` does, and CompilationForbidden."""

    def forbid_compilation(self) -> None:
        """From now on a compilation raises CompilationForbidden and is counted."""

    def close(self) -> None:
        """Give the cores back. Idempotent."""


class NxdRuntime:
    """An NxDModel, asynchronous: outputs are buffers that the device will write to, read with `.cpu()`."""

    def __init__(self, artifact: Artifact, cores: range, progress: Progress) -> None:
        """cores: one for each of the artifact's ranks.

        Raises NeuronUnavailable, and RuntimeError with `status=CODE` in its text where loading fails."""
        claim(cores)
        sdk = _import_sdk()
        from safetensors.torch import load_file

        self.compilations = 0
        self._ranks = len(cores)
        self._compilers = [(module, module.neuron_xla_compile) for module in sdk.compilers]
        model = sdk.nxd_model(world_size=len(cores))
        graphs = artifact.manifest.buckets
        for index, graph in enumerate(graphs):
            _add(model, artifact, graph)
            progress("graphs", (index + 1) / len(graphs))
        shards: list[dict[str, Tensor]] = []
        for path in artifact.weights():  # mapped, so that the host's memory need not hold them
            shards.append(load_file(path))
            progress("weights", len(shards) / (len(cores) + 1))
        model.set_weights(shards)
        progress("weights", 1.0)
        progress("device", 0.0)
        model.to_neuron()
        progress("device", 1.0)
        self._model: Any = model

    def execute(self, tag: str, inputs: Mapping[str, Tensor]) -> Execution:
        ranked = {name: [tensor] * self._ranks for name, tensor in inputs.items()}
        outputs = self._model(model_name=tag, forward_mode="async", **ranked)
        return _NxdExecution([of_ranks[0] for of_ranks in outputs], inputs)

    def forbid_compilation(self) -> None:
        for module, _ in self._compilers:
            module.neuron_xla_compile = self._refuse

    def close(self) -> None:
        """The runtime unloads a graph when its last reference goes; the driver frees the cores at the latest
        when the process ends."""
        self._model = None
        for module, compiler in self._compilers:
            module.neuron_xla_compile = compiler
        gc.collect()

    def _refuse(self, *arguments: Any, **options: Any) -> bytes:
        self.compilations += 1
        raise CompilationForbidden("something was to be compiled after warm-up")


class _NxdExecution:
    """Keeps the inputs until the device has surely read them."""

    def __init__(self, outputs: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> None:
        self._outputs, self._inputs = outputs, inputs

    def wait(self) -> Outputs:
        # Ranks compute the same outputs; the first one's are read.
        return tuple(output.cpu().numpy() for output in self._outputs)


def _add(model: Any, artifact: Artifact, graph: CompiledBucket) -> None:
    """Give NxD's model a graph of an artifact, as `ModelBuilder.compile` does with what it has just traced.

    `NxDModel.save` would put all graphs into one file, beside which an artifact would have each a second
    time; what that file says of a graph's inputs, the manifest says too."""
    from neuronx_distributed.trace.model_builder_utils import (
        CompilationArtifacts,
        ModelParamInfo,
        ProvidedArgInfo,
        TraceArtifacts,
    )
    from torch_neuronx.proto import metaneff_pb2
    from torch_neuronx.xla_impl import structure

    metaneff = metaneff_pb2.MetaNeff()
    metaneff.ParseFromString(artifact.file(graph.metaneff).read_bytes())
    needed = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(PagedLlama.forward).parameters.items()
        if name != "self"
    }
    names = [spec.name for spec in graph.inputs]
    traced = TraceArtifacts(
        hlo=None,
        metaneff=metaneff,
        flattener=structure.Flattener(
            tuple(range(len(names))), [names.index(name) for name in graph.unread] or None
        ),
        packer=None,  # of outputs in forward_mode="default"
        weight_name_to_idx={},
        weight_names_to_skip=set(),
        provided_args=[
            # Only its shape is looked at, to find the graph that is meant.
            ProvidedArgInfo(
                param_name=spec.name,
                is_positional=needed[spec.name],
                tensor=untouched_zeros(spec.shape, getattr(torch, spec.dtype)),
            )
            for spec in graph.inputs
        ],
        model_params=[
            ModelParamInfo(param_name=name, is_positional=positional) for name, positional in needed.items()
        ],
    )
    neff = CompilationArtifacts(neff_filepath=str(artifact.file(graph.neff)))
    model.add(key=graph.tag, trace_artifacts=traced, compilation_artifacts=neff)


def claim(cores: range) -> None:
    """Tell the runtime which cores are this process's: it reads that once, when it is imported."""
    wanted = format_cores(cores)
    if "torch_neuronx" in sys.modules and os.environ.get(VISIBLE_CORES) != wanted:
        raise NeuronUnavailable(
            f"torch_neuronx was imported before {VISIBLE_CORES} was set; start with {VISIBLE_CORES}={wanted}"
        )
    os.environ[VISIBLE_CORES] = wanted
    for name, value in (_ENVIRONMENT | {"NEURON_PROCESS_TAG": f"outcrop-nc{wanted}"}).items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True, slots=True)
class _Sdk:
    """nxd_model: the class. compilers: modules that hold `neuron_xla_compile`, which everything compiles
    through."""

    nxd_model: Any
    compilers: tuple[Any, ...]


def _import_sdk() -> _Sdk:
    """Raises NeuronUnavailable, which names the command that installs what is missing."""
    install = RELEASES[DEFAULT_RELEASE].install_command()
    try:
        import libneuronxla
        import torch_neuronx  # noqa: F401
        from neuronx_distributed import NxDModel
        from neuronx_distributed.trace import functions
    except ImportError as error:
        if _PLACEHOLDER in str(error):
            reason = "PyPI's packages of these names are placeholders, and one of them is installed here"
        elif (error.name or "").partition(".")[0] in _PACKAGES:
            reason = f"the Neuron SDK is not installed ({error})"
        else:
            raise NeuronUnavailable(
                f"the Neuron SDK does not load ({error}); `outcrop doctor` checks the driver, the runtime "
                f"library and the versions. Its Python packages: {install}"
            ) from error
        raise NeuronUnavailable(f"{reason}. Install the real ones: {install}") from error
    return _Sdk(NxDModel, (libneuronxla, functions))
