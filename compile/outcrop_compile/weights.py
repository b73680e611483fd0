"""Weights as the model definition takes them: fused, and sharded for one tensor-parallel rank. No torch.

For a rank of `world`, with D = head_dim and kv = max(1, kv_heads / world) key-value heads a rank:

    embed [V, H]                               layers.{i}.attn_norm, layers.{i}.mlp_norm, norm [H]
    layers.{i}.qkv [(heads/world + 2*kv)*D, H]   this rank's q, then k, then v
    layers.{i}.o [H, heads*D/world]
    layers.{i}.gate_up [2*F/world, H]            gate rows, then up rows
    layers.{i}.down [H, F/world]
    lm_head [V/world, H]                         absent when tied to embed
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from outcrop_compile.checkpoint import Checkpoint
from outcrop_compile.checkpoint.names import canonical_shapes, kind_of
from outcrop_compile.config import LlamaConfig

WeightType = Literal["float32", "bfloat16"]
Progress = Callable[[int, int], None]

_STORAGE = {"float32": np.float32, "bfloat16": np.uint16}
_TASK = 1 << 22  # numbers one thread reads at a time: long enough to amortise a hand-over, short for balance


class ShardingError(ValueError):
    """The model cannot be divided among this many ranks; the message names the size that does not fit."""


class Split(enum.Enum):
    """What a rank gets of a matrix."""

    WHOLE = enum.auto()
    ROWS = enum.auto()
    COLUMNS = enum.auto()
    KV_ROWS = enum.auto()  # rows, by whole key-value heads; ranks share one when there are fewer heads


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a canonical tensor goes; `size` is the config's field that the split divides. Tensors with
    the same target are stacked by row in the order of the table."""

    target: str
    split: Split = Split.WHOLE
    size: str = ""


PLACEMENTS = {
    "embed": Placement("embed"),
    "attn_norm": Placement("attn_norm"),
    "q": Placement("qkv", Split.ROWS, "num_heads"),
    "k": Placement("qkv", Split.KV_ROWS, "num_kv_heads"),
    "v": Placement("qkv", Split.KV_ROWS, "num_kv_heads"),
    "o": Placement("o", Split.COLUMNS, "num_heads"),
    "mlp_norm": Placement("mlp_norm"),
    "gate": Placement("gate_up", Split.ROWS, "intermediate_size"),
    "up": Placement("gate_up", Split.ROWS, "intermediate_size"),
    "down": Placement("down", Split.COLUMNS, "intermediate_size"),
    "norm": Placement("norm"),
    "lm_head": Placement("lm_head", Split.ROWS, "vocab_size"),
}


@dataclass(frozen=True, slots=True)
class _Part:
    """One canonical tensor's part for this rank: what to read of it, and the row of the target where it
    starts."""

    source: str
    target: str
    shape: tuple[int, ...]
    rows: slice
    columns: slice
    row: int


def parameter_shapes(config: LlamaConfig, world: int = 1) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of one rank, in the order of the layers. Raises ShardingError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for part in _parts(config, 0, world):
        height, *width = part.shape
        shapes[part.target] = (part.row + height, *width)
    return shapes


def load_weights(
    checkpoint: Checkpoint,
    *,
    dtype: WeightType = "float32",
    rank: int = 0,
    world: int = 1,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Read the parameters of one rank, in the order of the layers.

    Arrays are float32, or for bfloat16 uint16 holding its bits (rounded to nearest even). Every tensor is
    read straight into its place, so memory never holds more than the parameters and a few MiB. `progress`
    is called in this thread with (bytes done, bytes in all). Raises ShardingError; whatever `progress`
    raises ends the loading.
    """
    config = checkpoint.config
    shapes = parameter_shapes(config, world)
    parameters = {name: np.empty(shape, _STORAGE[dtype]) for name, shape in shapes.items()}
    total, done = sum(array.nbytes for array in parameters.values()), 0

    def read(task: _Part) -> int:
        height = task.shape[0]
        out = parameters[task.target][task.row : task.row + height]
        checkpoint.read_into(task.source, out, task.rows, task.columns)
        return int(out.nbytes)

    with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
        parts = _parts(config, rank, world)
        tasks = [pool.submit(read, task) for part in parts for task in _tasks(part, config.head_dim)]
        try:
            for task in as_completed(tasks):
                done += task.result()
                if progress:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return parameters


def _parts(config: LlamaConfig, rank: int, world: int) -> Iterator[_Part]:
    """The table of placements, applied to a model and a rank."""
    if not 0 <= rank < world:
        raise ShardingError(f"rank {rank} is not one of {world}")
    filled: dict[str, int] = {}
    for source, shape in canonical_shapes(config):
        placement = PLACEMENTS[kind_of(source)]
        rows = columns = slice(None)
        if placement.split is Split.COLUMNS:
            columns = _share(config, placement, shape[1], rank, world)
            shape = (shape[0], columns.stop - columns.start)
        elif placement.split is not Split.WHOLE:
            rows = _share(config, placement, shape[0], rank, world)
            shape = (rows.stop - rows.start, shape[1])
        target = source.removesuffix(kind_of(source)) + placement.target
        row = filled.get(target, 0)
        filled[target] = row + shape[0]
        yield _Part(source, target, shape, rows, columns, row)


def _share(config: LlamaConfig, placement: Placement, length: int, rank: int, world: int) -> slice:
    """The rank's run of an axis of `length`, in whole heads where the axis is made of heads."""
    count = int(getattr(config, placement.size))
    ranks = world
    if placement.split is Split.KV_ROWS and world > count and world % count == 0:
        rank, ranks = rank * count // world, count
    if count % ranks:
        raise ShardingError(f"{placement.size} {count} cannot be divided among {world} ranks")
    size = length // ranks
    return slice(rank * size, (rank + 1) * size)


def _tasks(part: _Part, head_dim: int) -> Iterator[_Part]:
    """Cut a matrix into runs of rows, whole heads each, for the threads to share."""
    if len(part.shape) == 1:
        yield part
        return
    height, width = part.shape
    start, step = part.rows.start or 0, max(1, _TASK // (width * head_dim)) * head_dim
    for row in range(0, height, step):
        size = min(step, height - row)
        rows = slice(start + row, start + row + size)
        yield replace(part, shape=(size, width), rows=rows, row=part.row + row)
