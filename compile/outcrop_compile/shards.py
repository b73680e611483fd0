"""A model's weights on disk, one file for each tensor-parallel rank, as the Neuron runtime loads them.

The files are safetensors under the names of `PagedLlama`'s buffers: bfloat16 but for the rotary tables and
the scales of quantised matrices, which are float32, and those matrices' codes, which are int8. Their metadata
say in which layout the matrices are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from outcrop_compile.artifact.require import LAYOUT
from outcrop_compile.checkpoint import Checkpoint
from outcrop_compile.llama import rotary_tables
from outcrop_compile.weights import FloatType, Progress, WeightType, is_multiplied, load_weights
from outcrop_kernels.quantised import SCALE, Quantised
from outcrop_kernels.weight_layout import WeightLayout

WEIGHTS = "weights"
"""Folder of an artifact that holds the shards."""
_HEADER = 1 << 18  # bytes set aside: 80 layers of quantised matrices need 100 KB
_LENGTH = 8  # bytes of the header's length, before it
_TYPES = {np.dtype(np.float32): "F32", np.dtype(np.uint16): "BF16", np.dtype(np.int8): "I8"}
_RENAMED = {"lm_head": "head", "lm_head" + SCALE: "head" + SCALE}
_TABLES = ("cos", "sin")


def shard_path(rank: int) -> str:
    """Where a rank's file is in an artifact. The name is that of neuronx_distributed's `shard_checkpoint`."""
    return f"{WEIGHTS}/tp{rank}_sharded_checkpoint.safetensors"


def write_shard(
    checkpoint: Checkpoint,
    path: Path,
    *,
    rank: int,
    world: int,
    dtype: WeightType,
    plain: FloatType,
    max_positions: int,
    layout: WeightLayout = "outputs-first",
    progress: Progress | None = None,
) -> None:
    """Write one rank's weights. They are read straight into the file, which is mapped: the process has no
    more than a few MiB of them in memory of its own, whatever the model's size.

    dtype, plain, rank, world, progress: as in `load_weights`; int8 has a scale for each output feature.
    max_positions: length of the rotary tables. layout: of matrices that products read. The file has its name
    once it is whole; one that is there already is not written again. Raises as `load_weights` does, and
    OSError.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _growing(part, layout) as file:
        load_weights(
            checkpoint, dtype=dtype, plain=plain, rank=rank, world=world, progress=progress,
            file_groups=False, own_head=True, allocate=partial(file.allocate, layout=layout),
        )  # fmt: skip
        for name, table in zip(_TABLES, rotary_tables(checkpoint.config, max_positions), strict=True):
            file.allocate(name, tuple(table.shape), np.float32)[...] = table.numpy()
    part.replace(path)


def model_weights(shard: Mapping[str, Tensor]) -> dict[str, Tensor | Quantised[Tensor]]:
    """A shard's tensors as `PagedLlama` takes them: under `load_weights`' names, and quantised matrices as
    such. The rotary tables are left out, as the model makes its own."""
    weights: dict[str, Tensor | Quantised[Tensor]] = {}
    for name, tensor in shard.items():
        if name not in _TABLES and not name.endswith(SCALE):
            scale = shard.get(name + SCALE)
            weight = tensor if scale is None else Quantised(tensor, scale, None, 8)
            weights["lm_head" if name == "head" else name] = weight
    return weights


class _File:
    """A safetensors file that grows by one tensor of zeros at a time."""

    def __init__(self, path: Path, layout: WeightLayout) -> None:
        self.path = path
        self.end = _LENGTH + _HEADER
        self.entries: dict[str, dict[str, Any]] = {"__metadata__": {LAYOUT: layout}}

    def allocate(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        layout: WeightLayout = "outputs-first",
    ) -> npt.NDArray[Any]:
        """An array of this shape, whatever its layout in the file."""
        kind, start = np.dtype(dtype), self.end
        turned = layout == "inputs-first" and is_multiplied(name, shape)
        stored = shape[::-1] if turned else shape
        size = math.prod(shape) * kind.itemsize
        self.end += size
        self.entries[_RENAMED.get(name, name)] = {
            "dtype": _TYPES[kind],
            "shape": list(stored),
            "data_offsets": [start - _LENGTH - _HEADER, self.end - _LENGTH - _HEADER],
        }
        # Without holes between tensors, which the format forbids. What is added to a file is zeros.
        with self.path.open("r+b") as file:
            file.truncate(self.end)
        array = np.memmap(self.path, kind, "r+", start, stored)
        return array.T if turned else array


@contextmanager
def _growing(path: Path, layout: WeightLayout) -> Iterator[_File]:
    """A file to allocate tensors in, whose header is written at the end."""
    path.write_bytes(b"")
    file = _File(path, layout)
    yield file
    header = json.dumps(file.entries, separators=(",", ":")).encode()
    if len(header) > _HEADER:
        raise ValueError(f"{path}: the header of {len(file.entries)} tensors needs more than {_HEADER} bytes")
    with path.open("r+b") as out:
        out.write(_HEADER.to_bytes(_LENGTH, "little") + header.ljust(_HEADER))
