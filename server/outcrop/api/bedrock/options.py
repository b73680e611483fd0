"""What an application needs to know for its control plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from outcrop.api.imports.registry import LoadModel, ModelFiles
from outcrop.api.job_runner import JobOptions
from outcrop.catalog.model import ServedModel
from outcrop.folders import state_folder
from outcrop.storage import Storage


def _no_engines(files: ModelFiles) -> ServedModel:
    raise ValueError("this application has no engines for imported models")


@dataclass(frozen=True, slots=True)
class ControlOptions:
    """storage: where jobs read and write. models: the folder that imported weights are copied to. load_model:
    how an imported model gets its engine. log_seconds: for how long invocation logs gather before they are
    written."""

    storage: Storage = field(default_factory=Storage)
    jobs: JobOptions = field(default_factory=JobOptions)
    models: Path = field(default_factory=lambda: state_folder() / "models")
    load_model: LoadModel = _no_engines
    log_seconds: float = 5.0
