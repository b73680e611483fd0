"""The one place where Outcrop touches the Neuron compiler: ModelBuilder V2 of NxD Core, and its parts.

Everything above it sees `Compiler`, so a stand-in of this module, which writes files, drives all the rest in
tests. `ModelBuilder.compile` compiles all graphs in one call, every time; here each is compiled by the
function that it calls for one, so that a build goes on where it stopped.

Names and behaviour are those of neuronx-distributed 0.17 to 0.19
(src/neuronx_distributed/trace/{model_builder_v2,functions,parallel_context}.py, nxd_model/nxd_model.py). Not
yet run on a device, nor with the SDK.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor, nn

from outcrop_compile.llama import TensorParallel
from outcrop_compile.sdk import DEFAULT_RELEASE, RELEASES, installed_packages

ARCH: Final = "trn1"
_PLATFORM = "NEURON_PLATFORM_TARGET_OVERRIDE"
"""Which chip torch-neuronx builds for, on machines that have none."""


class CompilerUnavailable(OSError):
    """The SDK is not to be had; the message says which command installs it."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A graph, lowered and not yet compiled. hlo, metaneff: their serialised protobufs. weights: names of the
    parameters that it reads, which are those that a rank's shard has to have. unread: names of the inputs
    that it does not read. artifacts: NxD's own."""

    tag: str
    hlo: bytes
    metaneff: bytes
    weights: frozenset[str]
    unread: tuple[str, ...]
    artifacts: Any


class Compiler(Protocol):
    def packages(self) -> Mapping[str, str]:
        """Versions of the SDK's Python packages. Raises CompilerUnavailable where one is missing."""

    def parallel(self, world: int) -> AbstractContextManager[TensorParallel]:
        """Within it, models are traced for `world` ranks: a graph is the same for all, and has the
        collectives given in it."""

    def trace(self, model: nn.Module, inputs: Mapping[str, Tensor], tag: str) -> Traced:
        """Lower the model for inputs of these shapes. Buffers that it reassigns become state on the device;
        parameters become the weights, under their names. Raises RuntimeError."""

    def compile(self, traced: Traced, flags: Sequence[str], folder: Path) -> Path:
        """Compile a graph, and return its NEFF, somewhere in the folder, where the compiler's log is too.
        Threads may compile at the same time. Raises RuntimeError, whose causes hold the compiler's words."""


class NxdCompiler:
    """neuronx-cc through NxD Core. No device is needed."""

    def packages(self) -> Mapping[str, str]:
        found = installed_packages()
        release = RELEASES[DEFAULT_RELEASE]
        if missing := [name for name in release.python if name not in found]:
            raise CompilerUnavailable(
                f"the Neuron SDK is not installed (no {', '.join(missing)}). A build needs no device, but "
                f"x86 Linux and these packages: {release.install_command()}"
            )
        return found

    @contextmanager
    def parallel(self, world: int) -> Iterator[TensorParallel]:
        os.environ.setdefault(_PLATFORM, ARCH)
        from neuronx_distributed import NxDParallelState
        from neuronx_distributed.parallel_layers.mappings import (
            gather_from_tensor_model_parallel_region,
            reduce_from_tensor_model_parallel_region,
        )

        with NxDParallelState(world_size=world, tensor_model_parallel_size=world):
            yield TensorParallel(
                rank=0,
                world=world,
                all_reduce=reduce_from_tensor_model_parallel_region,
                all_gather=gather_from_tensor_model_parallel_region,
            )

    def trace(self, model: nn.Module, inputs: Mapping[str, Tensor], tag: str) -> Traced:
        from neuronx_distributed import ModelBuilder

        builder = ModelBuilder(model=model)
        builder.trace(kwargs=dict(inputs), tag=tag)
        artifacts = builder.trace_artifacts_collection[tag]
        flattener = artifacts.flattener
        names = list(inputs)
        if tuple(flattener.layout) != tuple(range(len(names))):
            # Whoever loads the graph has its inputs in this order.
            raise RuntimeError(f"{tag}: this NxD arranges {len(names)} inputs as {flattener.layout}")
        return Traced(
            tag,
            artifacts.hlo.SerializeToString(deterministic=True),
            artifacts.metaneff.SerializeToString(deterministic=True),
            # A ParameterDict may have no dots in its names, so torch-neuronx writes them as arrows.
            frozenset(name.replace("->", ".") for name in artifacts.weight_name_to_idx),
            tuple(names[place] for place in flattener.exclude or ()),
            artifacts,
        )

    def compile(self, traced: Traced, flags: Sequence[str], folder: Path) -> Path:
        from neuronx_distributed.trace.functions import compile

        compiled = compile(
            hlo_module=traced.artifacts.hlo,
            metaneff=traced.artifacts.metaneff,
            compiler_workdir=str(folder),
            compiler_args=" ".join(flags),
            key=traced.tag,
        )
        return Path(compiled.neff_filepath)
