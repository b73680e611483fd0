"""How a machine is divided among the replicas of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from outcrop.backends.neuron.cores import format_cores, parse_cores
from outcrop.engine.config import EngineConfig
from outcrop.settings import ModelSettings
from outcrop_compile.artifact.manifest import NAME, Shapes
from outcrop_compile.artifact.open import read_manifest
from outcrop_compile.processors import divided_processors, usable_processors


def replica_configs(model: ModelSettings, **more: Any) -> list[EngineConfig]:
    """What each engine process of a model is told: all the same but for its part of the machine. Neuron:
    consecutive cores, as many as the artifact has ranks; without an artifact (transformers-neuronx), an equal
    part of the model's. CPU: processors of its own, whole cores side by side, where there are enough; its
    threads run there alone. more: fields that are not settings. Raises ValueError and OSError."""
    config, count = model.engine_config(**more), model.replicas
    if count == 1 or model.backend == "fake":
        return [config] * count
    if model.artifact is not None or model.cores is not None:
        divide = _equal_parts if model.artifact is None else _divided_cores
        return [msgspec.structs.replace(config, cores=format_cores(part)) for part in divide(model, count)]
    threads = config.threads
    if threads is None and (allowed := usable_processors()) < len(os.sched_getaffinity(0)):
        threads = max(1, allowed // count)  # a container's limit, which is not one of processors
    shares = divided_processors(count)
    return [msgspec.structs.replace(config, processors=share, threads=threads) for share in shares]


def cache_block(model: ModelSettings) -> int:
    """Tokens that a model's prefix cache keeps together, 0 without one or where vLLM chooses. Raises
    ArtifactError."""
    return _sizes(model).block_size if model.prefix_cache else 0


def rows(model: ModelSettings) -> int:
    """Requests that run at once, in all replicas; 0 where vLLM chooses. Raises ArtifactError."""
    return _sizes(model).max_rows * model.replicas


def ranks(artifact: Path) -> int:
    """NeuronCores that one engine of an artifact takes. Raises ArtifactError."""
    return read_manifest(artifact / NAME).target.tp


def _sizes(model: ModelSettings) -> EngineConfig | Shapes:
    return model.engine_config() if model.artifact is None else read_manifest(model.artifact / NAME).shapes


def exclude_each_other(old: Sequence[EngineConfig], new: Sequence[EngineConfig]) -> bool:
    """Whether engines of `new` cannot start while those of `old` run: NeuronCores belong to one process."""
    held = {core for config in old for core in _cores(config)}
    return any(core in held for config in new for core in _cores(config))


def _divided_cores(model: ModelSettings, count: int) -> list[range]:
    assert model.artifact is not None
    tp = ranks(model.artifact)
    wanted = range(tp * count) if model.cores is None else parse_cores(model.cores)
    if len(wanted) != tp * count:
        right = format_cores(range(wanted.start, wanted.start + tp * count))
        raise ValueError(
            f"cores {model.cores} are {len(wanted)}, but {count} replicas of an artifact that is built for "
            f"{tp} (target.tp) take {tp * count}: give --cores {right}, or another number of --replicas"
        )
    return [wanted[first : first + tp] for first in range(0, len(wanted), tp)]


def _equal_parts(model: ModelSettings, count: int) -> list[range]:
    cores = parse_cores(str(model.cores))
    size, left = divmod(len(cores), count)
    if left:
        raise ValueError(
            f"cores {model.cores} are {len(cores)}, which {count} replicas cannot have equal parts of: give "
            "other --cores, or another number of --replicas"
        )
    return [cores[first : first + size] for first in range(0, len(cores), size)]


def _cores(config: EngineConfig) -> range:
    if config.cores is not None:
        return parse_cores(config.cores)
    return range(ranks(Path(config.artifact))) if config.artifact else range(0)
