"""An open checkpoint: the one view of a model's weights, whatever the files look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from outcrop_compile.checkpoint.arrays import Array
from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.tensors import Shape, StoredTensor
from outcrop_compile.config import LlamaConfig

if TYPE_CHECKING:
    from outcrop_compile.checkpoint.groups import Groups

Format = Literal["huggingface", "meta", "gguf"]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model's configuration and weights, validated as a whole when it was opened, read one part at a
    time from a memory map (which stays open as long as this object lives).

    Names and shapes are those of `names.canonical_shapes`; q and k are in Hugging Face's rotate-half
    order. Threads may read at the same time.
    """

    path: Path
    format: Format
    config: LlamaConfig
    tensors: Mapping[str, StoredTensor]

    def names(self) -> list[str]:
        """Canonical names, in the order of the layers."""
        return list(self.tensors)

    def shape(self, name: str) -> Shape:
        return self._tensor(name).shape

    def read(self, name: str) -> Array:
        """The whole tensor: float32, C-contiguous, freshly allocated, the caller's to change.

        Raises CheckpointError if there is no such tensor."""
        out = np.empty(self.shape(name), np.float32)
        self.read_into(name, out)
        return out

    def read_into(
        self, name: str, out: Array, rows: slice = slice(None), columns: slice = slice(None)
    ) -> None:
        """Write a part of a tensor to `out`, without another copy of it. See StoredTensor.read_into."""
        self._tensor(name).read_into(out, rows, columns)

    def groups(self, name: str) -> Groups | None:
        """How a tensor is stored in groups of integers, if it is. See StoredTensor.read_groups_into."""
        return self._tensor(name).groups

    def read_groups_into(
        self, name: str, codes: Array, scale: Array, minimum: Array | None, rows: slice = slice(None)
    ) -> None:
        """Write rows of a tensor that has `groups` as they are stored. See StoredTensor.read_groups_into."""
        self._tensor(name).read_groups_into(codes, scale, minimum, rows)

    def _tensor(self, name: str) -> StoredTensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.path}: no tensor {name!r}") from None
