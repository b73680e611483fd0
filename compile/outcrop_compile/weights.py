"""Weights as the model definition takes them: fused, and sharded for one tensor-parallel rank. No torch.

For a rank of `world`, with D = head_dim and kv = max(1, kv_heads / world) key-value heads a rank:

    embed [V, H]                               layers.{i}.attn_norm, layers.{i}.mlp_norm, norm [H]
    layers.{i}.qkv [(heads/world + 2*kv)*D, H]   this rank's q, then k, then v
    layers.{i}.o [H, heads*D/world]
    layers.{i}.gate_up [2*F/world, H]            gate rows, then up rows
    layers.{i}.down [H, F/world]
    lm_head [V/world, H]                         absent when tied to embed

Quantised, every matrix but embed is `Quantised`, and a tied lm_head is there as well, made of embed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from outcrop_compile.checkpoint import Checkpoint, CheckpointError
from outcrop_compile.checkpoint.names import canonical_shapes, kind_of
from outcrop_compile.config import LlamaConfig
from outcrop_compile.quantise import Form, empty_quantised, form_of, quantise_channels
from outcrop_kernels.quantised import Quantised

FloatType = Literal["float32", "bfloat16"]
WeightType = Literal["float32", "bfloat16", "int8", "int4"]
Weight = npt.NDArray[Any] | Quantised[npt.NDArray[Any]]
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
    return _shapes(_parts(config, 0, world))


def _shapes(parts: Iterable[_Part]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for part in parts:
        height, *width = part.shape
        shapes[part.target] = (part.row + height, *width)
    return shapes


def load_weights(
    checkpoint: Checkpoint,
    *,
    dtype: WeightType = "float32",
    plain: FloatType = "float32",
    rank: int = 0,
    world: int = 1,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, Weight]:
    """Read the parameters of one rank, in the order of the layers.

    Arrays are float32, or for bfloat16 uint16 holding its bits (rounded to nearest even). int8 and int4 are
    types of matrices: int4 keeps a file's groups of 4 bits, both keep its groups of 8 bits (GGUF's Q8_0),
    and what is stored otherwise gets 8 bits with a scale for each output feature; embed and vectors, which
    no matrix product reads, are of the `plain` type then.

    Every tensor is read straight into its place, so memory never holds more than the parameters and a few
    MiB. `progress` is called in this thread with (bytes done, bytes in all). Raises ShardingError, and
    CheckpointError where int4 finds no groups of 4 bits; whatever `progress` raises ends the loading.
    """
    parts = list(_parts(checkpoint.config, rank, world))
    forms: dict[str, Form | None] = {}
    if dtype == "int8" or dtype == "int4":
        parts += _tied_head(checkpoint.config, parts, rank, world)
        forms = _forms(checkpoint, parts, dtype)
    else:
        plain = dtype
    parameters: dict[str, Weight] = {}
    for name, shape in _shapes(parts).items():
        form = forms.get(name)
        parameters[name] = np.empty(shape, _STORAGE[plain]) if form is None else empty_quantised(shape, form)
    total, done = sum(map(_size, parameters.values())), 0

    def read(task: _Part) -> int:
        target, rows = parameters[task.target], slice(task.row, task.row + task.shape[0])
        if isinstance(target, Quantised):
            part = _rows(target, rows)
            _read_quantised(checkpoint, task, part, forms[task.target])
            return _size(part)
        out = target[rows]
        checkpoint.read_into(task.source, out, task.rows, task.columns)
        return _size(out)

    with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
        head_dim = checkpoint.config.head_dim
        tasks = [pool.submit(read, task) for part in parts for task in _tasks(part, head_dim)]
        try:
            for task in as_completed(tasks):
                done += task.result()
                if progress:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return parameters


def _tied_head(config: LlamaConfig, parts: list[_Part], rank: int, world: int) -> list[_Part]:
    """The head that is tied to embed as a part of its own, since embed itself is not quantised."""
    if not config.tie_embeddings:
        return []
    embed = parts[0]
    rows = _share(config, PLACEMENTS["lm_head"], config.vocab_size, rank, world)
    shape = (rows.stop - rows.start, embed.shape[1])
    return [replace(embed, target="lm_head", shape=shape, rows=rows)]


def _forms(
    checkpoint: Checkpoint, parts: list[_Part], dtype: Literal["int8", "int4"]
) -> dict[str, Form | None]:
    """How each target is quantised; None for those that are not."""
    sources: dict[str, list[_Part]] = {}
    for part in parts:
        sources.setdefault(part.target, []).append(part)
    forms: dict[str, Form | None] = {}
    for target, stacked in sources.items():
        matrix = target != "embed" and len(stacked[0].shape) == 2
        # Columns that a rank leaves out would cut through groups.
        whole = all(part.shape[1:] == checkpoint.shape(part.source)[1:] for part in stacked)
        found = [checkpoint.groups(part.source) if whole else None for part in stacked]
        forms[target] = form_of(found, dtype) if matrix else None
    if dtype == "int4" and not any(form is not None and form.bits == 4 for form in forms.values()):
        raise CheckpointError(
            f"{checkpoint.path}: dtype int4 serves the 4-bit groups of a GGUF file (Q4_0, Q4_1), and this "
            "checkpoint has none; choose dtype int8"
        )
    return forms


def _read_quantised(checkpoint: Checkpoint, task: _Part, out: Quantised[Any], form: Form | None) -> None:
    if form is not None and form.groups:
        checkpoint.read_groups_into(task.source, out.codes, out.scale, out.minimum, task.rows)
        return
    numbers = np.empty(task.shape, np.float32)
    checkpoint.read_into(task.source, numbers, task.rows, task.columns)
    quantise_channels(numbers, out)


def _rows(weight: Quantised[npt.NDArray[Any]], rows: slice) -> Quantised[npt.NDArray[Any]]:
    minimum = None if weight.minimum is None else weight.minimum[rows]
    return replace(weight, codes=weight.codes[rows], scale=weight.scale[rows], minimum=minimum)


def _size(weight: Weight) -> int:
    """Bytes."""
    arrays = (weight.codes, weight.scale, weight.minimum) if isinstance(weight, Quantised) else (weight,)
    return sum(array.nbytes for array in arrays if array is not None)


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
