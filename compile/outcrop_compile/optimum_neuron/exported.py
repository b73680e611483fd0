"""A folder that optimum-neuron has exported, read without that package.

Its files: optimum/neuron/configuration_utils.py (neuron_config.json and the keys about versions),
optimum/neuron/models/inference/backend/config.py (the other keys), .../backend/pretrained_model.py (compiled
graphs as TorchScript in model.pt or model_NAME.pt, sharded weights below checkpoint/) of
huggingface/optimum-neuron v0.4.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "neuron_config.json"
_MANDATORY = ("optimum_neuron_version", "neuronxcc_version", "_serialized_key")
"""Without them optimum-neuron refuses the file."""


class NotExported(ValueError):
    """The folder's neuron_config.json is none of optimum-neuron's; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Exported:
    """model: the checkpoint's id on the Hugging Face hub, or the folder's name where it was a local one.
    target: the instance family, as optimum-neuron writes it: trn1 stands for inf2 too. batch: requests side
    by side. length: tokens of context. graphs: files with compiled graphs; neffs: names of NEFF files beside
    them, as copied out of a compile cache (MODULE_...). weights: whether the folder has them. size: bytes."""

    folder: Path
    model: str
    target: str
    tp: int
    batch: int
    length: int
    dtype: str
    optimum_neuron: str
    neuronx_cc: str
    graphs: tuple[str, ...]
    neffs: tuple[str, ...]
    weights: bool
    size: int


def is_exported(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def read_exported(folder: Path) -> Exported:
    """Raises NotExported and OSError."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotExported(f"{path} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise NotExported(f"{path} is no JSON object")
    if missing := [key for key in _MANDATORY if key not in config]:
        raise NotExported(f"{path} lacks {', '.join(missing)}, so optimum-neuron did not write it")
    files = [each for each in folder.rglob("*") if each.is_file()]
    return Exported(
        folder=folder,
        model=_text(config, "checkpoint_id", path, folder.resolve().name),
        target=_text(config, "target", path, "trn1"),
        tp=_count(config, "tp_degree", path),
        batch=_count(config, "batch_size", path),
        length=_count(config, "sequence_length", path),
        dtype=_text(config, "torch_dtype", path),
        optimum_neuron=_text(config, "optimum_neuron_version", path),
        neuronx_cc=_text(config, "neuronxcc_version", path),
        graphs=tuple(sorted(each.name for each in folder.glob("model*.pt"))),
        neffs=tuple(sorted(each.relative_to(folder).as_posix() for each in files if each.suffix == ".neff")),
        weights=any(each.suffix == ".safetensors" for each in files),
        size=sum(each.stat().st_size for each in files),
    )


def exported_below(folder: Path) -> tuple[list[Exported], list[NotExported]]:
    """Those that a folder is or has directly in it, by name, and what is wrong with others that have a
    neuron_config.json."""
    found: list[Exported] = []
    wrong: list[NotExported] = []
    beside = sorted(folder.iterdir()) if folder.is_dir() else []
    for each in (folder, *beside):
        if is_exported(each):
            try:
                found.append(read_exported(each))
            except NotExported as problem:
                wrong.append(problem)
    return found, wrong


def _text(config: dict[str, Any], key: str, path: Path, default: str | None = None) -> str:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise NotExported(f"{path}: {key} is {value!r}, not a text")
    return value


def _count(config: dict[str, Any], key: str, path: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise NotExported(f"{path}: {key} is {value!r}, not a number of at least 1")
    return value
