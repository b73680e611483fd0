"""From a configuration to a Neuron backend that is ready to be warmed up. Not yet run on a device."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

from outcrop.backends.base import DeviceFailure, Progress
from outcrop.backends.neuron import devices
from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.backends.neuron.cores import cores_of, format_cores
from outcrop.backends.neuron.nrt import NrtStatus, drain_of, status_of
from outcrop.backends.neuron.runtime import NeuronUnavailable, NxdRuntime
from outcrop.doctor.facts import gather
from outcrop.doctor.neuron_ls import owners
from outcrop.engine.config import EngineConfig
from outcrop_compile.artifact import Artifact, ArtifactMismatch, Place, open_artifact, require, require_layout
from outcrop_compile.artifact.kernels import kernel_digests
from outcrop_compile.checkpoint import CheckpointError, open_checkpoint
from outcrop_compile.sdk import installed_packages

_IN_USE = ("LOAD_NOT_ENOUGH_NC", "EXEC_NC_BUSY")
_ATTEMPTS, _ATTEMPT_SECONDS = 3, 2.0


def open_backend(config: EngineConfig, progress: Progress) -> tuple[NeuronBackend, str]:
    """The backend of a config and a line that describes it.

    Raises ArtifactError where the artifact is damaged or was made for something else, NeuronUnavailable where
    the SDK or the cores are not to be had, ValueError for a wrong setting, and DeviceFailure where loading
    shows that the hardware is broken; each says what to do.
    """
    artifact = open_artifact(Path(config.artifact), progress=progress)
    manifest = artifact.manifest
    require(
        manifest,
        Place(
            arch=devices.architecture(),
            cores=devices.core_count(),
            packages=installed_packages(),
            kernels=kernel_digests(manifest.kernels),
            max_model_len=config.max_model_len,
        ),
    )
    require_layout(artifact)
    if config.speculative_tokens > manifest.shapes.guesses:
        raise ArtifactMismatch(
            "shapes.guesses",
            manifest.shapes.guesses,
            f"at least {config.speculative_tokens}, the speculative tokens that are asked for",
            manifest.build_command(speculative_tokens=config.speculative_tokens),
        )
    _require_model(Path(config.model), artifact)
    cores = cores_of(config.cores, manifest.target.tp)
    _require_cores(cores)
    runtime = _load(artifact, cores, progress)
    backend = NeuronBackend(
        runtime,
        manifest,
        depth=config.depth,
        max_model_len=config.max_model_len,
        uncorrectable=devices.uncorrectable_errors,
    )
    shapes = manifest.shapes
    return backend, (
        f"artifact {manifest.key[:12]} ({manifest.model.name}, {shapes.quantisation or shapes.dtype}) on "
        f"NeuronCores {format_cores(cores)}, {shapes.num_blocks * shapes.block_size} tokens of KV, "
        f"{shapes.max_rows} requests at once"
    )


def _require_model(path: Path, artifact: Artifact) -> None:
    """Whether a checkpoint that is named beside the artifact, for its tokenizer, is of the same model."""
    if path.is_relative_to(artifact.path):
        return
    try:
        found = asdict(open_checkpoint(path).config)
    except CheckpointError:
        return  # a folder with a tokenizer alone
    for name, built in asdict(artifact.manifest.model.config).items():
        if found[name] != built:
            mend = artifact.manifest.build_command(model=path)
            raise ArtifactMismatch(f"model.config.{name}", built, f"{found[name]}, as {path} has it", mend)


def _require_cores(cores: range) -> None:
    """Whether this machine has them, as far as the driver says."""
    count = devices.core_count()
    if count is not None and cores.stop > count:
        raise NeuronUnavailable(
            f"cores {format_cores(cores)} are beyond this machine's {count} NeuronCores (0-{count - 1}): "
            "choose others with --cores"
        )


def _owners(status: NrtStatus) -> str:
    """Who has the cores, where the error is that somebody has."""
    if status.name not in _IN_USE:
        return ""
    held = [
        f"pid {process.pid} ({process.command}) has neuron{', neuron'.join(map(str, indices))}"
        for process, indices in owners(gather().devices)
        if process.pid != os.getpid()
    ]
    return f". {'; '.join(held)}" if held else ""


def _load(artifact: Artifact, cores: range, progress: Progress) -> NxdRuntime:
    """Cores that are in use are tried again: an engine before this one may not have given them back yet."""
    for attempt in range(_ATTEMPTS):
        try:
            return NxdRuntime(artifact, cores, progress)
        except RuntimeError as error:
            failure, status = error, status_of(error)
        if status.name not in _IN_USE or attempt == _ATTEMPTS - 1:
            break
        time.sleep(_ATTEMPT_SECONDS)
    reason = f"the artifact cannot be loaded: {status} ({failure}){_owners(status)}"
    if (drain := drain_of(status)) != "never":
        raise DeviceFailure(reason, code=status.code, drain=drain) from failure
    raise NeuronUnavailable(reason) from failure
