"""Which model a command means: a checkpoint on disk, or one of the Llama 3 models by name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outcrop_compile.config import LlamaConfig


def model_config(model: str) -> tuple[str, LlamaConfig]:
    """Its name and configuration. model: a folder or GGUF file, of which no weight is read, or a name as
    Hugging Face or Bedrock has it, inference profiles and ARNs included. Raises ValueError."""
    from outcrop.catalog.identifiers import resource_name, without_geography
    from outcrop_compile.shapes import SHAPES, find_shape

    shape = find_shape(without_geography(resource_name(model)))
    if shape is not None and not Path(model).exists():
        return shape.name, shape.config
    if Path(model).exists():
        return Path(model).resolve().name, _read(Path(model))
    near = difflib.get_close_matches(model.rpartition("/")[2], SHAPES, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"--model {model}: neither a checkpoint nor a Llama 3 text model ({', '.join(SHAPES)}){hint}"
    )


def _read(path: Path) -> LlamaConfig:
    from outcrop_compile.checkpoint import CheckpointError, open_checkpoint
    from outcrop_compile.checkpoint.huggingface import CONFIG, read_config

    # A configuration is enough: weights may yet be on their way.
    if (path / CONFIG).exists():
        try:
            return read_config(path / CONFIG)
        except OSError as error:
            raise CheckpointError(f"{path / CONFIG}: {error.strerror or error}") from None
    return open_checkpoint(path).config
