"""Weights as the model definition takes them: fused, and sharded for one tensor-parallel rank. No torch.

For a rank, with D = head_dim and the rank's own numbers of heads, kv heads, rows of the MLP, tokens and
columns of embed (of its `Layout`, whose padding is zeros here):

    embed [V, columns]                   layers.{i}.attn_norm, layers.{i}.mlp_norm, norm [H]
    layers.{i}.qkv [(heads + 2*kv)*D, H]   this rank's q, then k, then v
    layers.{i}.o [H, heads*D]
    layers.{i}.gate_up [2*rows, H]         gate rows, then up rows
    layers.{i}.down [H, rows]
    lm_head [tokens, H]                    absent when tied to embed and whole

Quantised, every matrix but embed is `Quantised`. A tied lm_head is there as well then, made of embed, and so
it is where there are several ranks, for it is divided otherwise than embed, and in all shards on disk, whose
matrices may lie otherwise (`outcrop_kernels.weight_layout`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from outcrop_compile.checkpoint import Checkpoint, CheckpointError
from outcrop_compile.checkpoint.names import canonical_shapes, kind_of
from outcrop_compile.config import LlamaConfig
from outcrop_compile.quantise import Allocate, Form, form_of, quantise_channels, zero_quantised, zeros
from outcrop_compile.tensor_parallel import Layout, ShardingError, divide
from outcrop_kernels.quantised import SCALE, Quantised

FloatType = Literal["float32", "bfloat16"]
WeightType = Literal["float32", "bfloat16", "int8", "int4"]
Weight = npt.NDArray[Any] | Quantised[npt.NDArray[Any]]
Progress = Callable[[int, int], None]

_STORAGE = {"float32": np.float32, "bfloat16": np.uint16}
_TASK = 1 << 22  # numbers one thread reads at a time: long enough to amortise a hand-over, short for balance


class Split(enum.Enum):
    """What ranks divide among them of a matrix's rows or columns."""

    NOTHING = enum.auto()
    QUERIES = enum.auto()
    KEYS = enum.auto()
    INTERMEDIATE = enum.auto()
    VOCABULARY = enum.auto()
    HIDDEN = enum.auto()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a canonical tensor goes, and what ranks divide of it: of its rows, or of its columns. Tensors
    with the same target are stacked by row in the order of the table."""

    target: str
    rows: Split = Split.NOTHING
    columns: Split = Split.NOTHING


PLACEMENTS = {
    "embed": Placement("embed", columns=Split.HIDDEN),
    "attn_norm": Placement("attn_norm"),
    "q": Placement("qkv", rows=Split.QUERIES),
    "k": Placement("qkv", rows=Split.KEYS),
    "v": Placement("qkv", rows=Split.KEYS),
    "o": Placement("o", columns=Split.QUERIES),
    "mlp_norm": Placement("mlp_norm"),
    "gate": Placement("gate_up", rows=Split.INTERMEDIATE),
    "up": Placement("gate_up", rows=Split.INTERMEDIATE),
    "down": Placement("down", columns=Split.INTERMEDIATE),
    "norm": Placement("norm"),
    "lm_head": Placement("lm_head", rows=Split.VOCABULARY),
}


@dataclass(frozen=True, slots=True)
class _Part:
    """One canonical tensor's part for this rank: what to read of it, and the row of the target where it
    starts. shape: what it takes of the target, padding included."""

    source: str
    target: str
    shape: tuple[int, ...]
    rows: slice
    columns: slice
    row: int


def parameter_shapes(
    config: LlamaConfig, world: int = 1, *, own_head: bool = False
) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of one rank, in the order of the layers. own_head: as in `load_weights`.
    Raises ShardingError."""
    return _shapes(_parts(divide(config, world), 0, own_head=world > 1 or own_head))


def is_multiplied(name: str, shape: Sequence[int]) -> bool:
    """Whether a parameter is a matrix that products read: small integers where a model has such, and in the
    order that kernels want."""
    return name != "embed" and len(shape) == 2 and not name.endswith(SCALE)


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
    file_groups: bool = True,
    own_head: bool = False,
    allocate: Allocate = zeros,
) -> dict[str, Weight]:
    """Read the parameters of one rank, in the order of the layers.

    Arrays are float32, or for bfloat16 uint16 holding its bits (rounded to nearest even). int8 and int4 are
    types of matrices: int4 keeps a file's groups of 4 bits, both keep its groups of 8 bits (GGUF's Q8_0),
    and what is stored otherwise gets 8 bits with a scale for each output feature; embed and vectors, which
    no matrix product reads, are of the `plain` type then. Without `file_groups`, every matrix gets a scale
    for each output feature. With `own_head`, a head tied to embed is a part of its own in any case.

    Every tensor is read straight into its place, which `allocate` makes, so memory never holds more than the
    parameters and a few MiB. `progress` is called in this thread with (bytes done, bytes in all). Raises
    ShardingError, and CheckpointError where int4 finds no groups of 4 bits; whatever `progress` raises ends
    the loading.
    """
    layout = divide(checkpoint.config, world)
    parts = list(_parts(layout, rank, own_head=own_head or world > 1 or dtype in ("int8", "int4")))
    forms: dict[str, Form | None] = {}
    if dtype == "int8" or dtype == "int4":
        forms = _forms(checkpoint, parts, dtype, file_groups)
    else:
        plain = dtype
    parameters: dict[str, Weight] = {}
    for name, shape in _shapes(parts).items():
        if (form := forms.get(name)) is None:
            parameters[name] = allocate(name, shape, _STORAGE[plain])
        else:
            parameters[name] = zero_quantised(name, shape, form, allocate)
    cuts = [cut for part in parts for cut in _cuts(part, checkpoint.config.head_dim)]
    total, done = sum(_size(_place(parameters[cut.target], cut)) for cut in cuts), 0

    def read(cut: _Part) -> int:
        out = _place(parameters[cut.target], cut)
        if isinstance(out, Quantised):
            _read_quantised(checkpoint, cut, out, forms[cut.target])
        else:
            checkpoint.read_into(cut.source, out, cut.rows, cut.columns)
        return _size(out)

    with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
        tasks = [pool.submit(read, cut) for cut in cuts]
        try:
            for task in as_completed(tasks):
                done += task.result()
                if progress:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return parameters


def _forms(
    checkpoint: Checkpoint, parts: list[_Part], dtype: Literal["int8", "int4"], file_groups: bool
) -> dict[str, Form | None]:
    """How each target is quantised; None for those that are not."""
    sources: dict[str, list[_Part]] = {}
    for part in parts:
        sources.setdefault(part.target, []).append(part)
    forms: dict[str, Form | None] = {}
    for target, stacked in sources.items():
        matrix = is_multiplied(target, stacked[0].shape)
        # Columns that a rank leaves out would cut through groups.
        whole = file_groups and all(part.shape[1:] == checkpoint.shape(part.source)[1:] for part in stacked)
        found = [checkpoint.groups(part.source) if whole else None for part in stacked]
        forms[target] = form_of(found, dtype) if matrix else None
    if dtype == "int4" and not any(form is not None and form.bits == 4 for form in forms.values()):
        raise CheckpointError(
            f"{checkpoint.path}: dtype int4 serves the 4-bit groups of a GGUF file (Q4_0, Q4_1), and this "
            "checkpoint has none; choose dtype int8"
        )
    return forms


def _read_quantised(
    checkpoint: Checkpoint, cut: _Part, out: Quantised[npt.NDArray[Any]], form: Form | None
) -> None:
    if form is not None and form.groups:
        checkpoint.read_groups_into(cut.source, out.codes, out.scale, out.minimum, cut.rows)
        return
    numbers = np.empty(out.codes.shape, np.float32)
    checkpoint.read_into(cut.source, numbers, cut.rows, cut.columns)
    quantise_channels(numbers, out)


def _place(target: Weight, cut: _Part) -> Weight:
    """Where the cut's numbers go: a view of the target, without padding."""
    height, *width = cut.shape
    rows = slice(cut.row, cut.row + height)
    if not width:
        assert not isinstance(target, Quantised)
        return target[rows]
    columns = slice(0, cut.columns.stop - cut.columns.start)
    if not isinstance(target, Quantised):
        return target[rows, columns]
    minimum = None if target.minimum is None else target.minimum[rows]
    return replace(target, codes=target.codes[rows, columns], scale=target.scale[rows], minimum=minimum)


def _size(weight: Weight) -> int:
    """Bytes."""
    arrays = (weight.codes, weight.scale, weight.minimum) if isinstance(weight, Quantised) else (weight,)
    return sum(array.nbytes for array in arrays if array is not None)


def _parts(layout: Layout, rank: int, *, own_head: bool) -> Iterator[_Part]:
    """The table of placements, applied to a model and a rank. own_head: whether a head that is tied to embed
    is a part of its own."""
    if not 0 <= rank < layout.world:
        raise ShardingError(f"rank {rank} is not one of {layout.world}")
    filled: dict[str, int] = {}
    whole_shapes = [(source, kind_of(source), whole) for source, whole in canonical_shapes(layout.config)]
    if own_head and layout.config.tie_embeddings:
        source, _, whole = whole_shapes[0]
        whole_shapes.append((source, "lm_head", whole))
    for source, kind, whole in whole_shapes:
        placement = PLACEMENTS[kind]
        shape, rows, columns = whole, slice(None), slice(None)
        if len(whole) == 2:
            height, rows = _share(layout, placement.rows, whole[0], rank)
            width, columns = _share(layout, placement.columns, whole[1], rank)
            shape = (height, width)
        target = source.removesuffix(kind_of(source)) + placement.target
        row = filled.get(target, 0)
        filled[target] = row + shape[0]
        yield _Part(source, target, shape, rows, columns, row)


def _share(layout: Layout, split: Split, length: int, rank: int) -> tuple[int, slice]:
    """What a rank has of an axis of `length`: its size, padding included, and what to read."""
    dim = layout.config.head_dim
    match split:
        case Split.NOTHING:
            return length, slice(0, length)
        case Split.QUERIES:
            return layout.heads * dim, _times(layout.query_heads(rank), dim)
        case Split.KEYS:
            return layout.kv_heads * dim, _times(layout.key_heads(rank), dim)
        case Split.INTERMEDIATE:
            return layout.intermediate_size, layout.intermediate_rows(rank)
        case Split.VOCABULARY:
            return layout.vocab_size, layout.vocabulary(rank)
        case Split.HIDDEN:
            return layout.embed_size, layout.embed_columns(rank)


def _times(heads: slice, dim: int) -> slice:
    return slice(heads.start * dim, heads.stop * dim)


def _cuts(part: _Part, head_dim: int) -> Iterator[_Part]:
    """Cut what is to be read of a matrix into runs of rows, whole heads each, for the threads to share."""
    if len(part.shape) == 1:
        yield part
        return
    height, width = part.rows.stop - part.rows.start, part.shape[1]
    step = max(1, _TASK // (width * head_dim)) * head_dim
    for row in range(0, height, step):
        size = min(step, height - row)
        rows = slice(part.rows.start + row, part.rows.start + row + size)
        yield replace(part, shape=(size, width), rows=rows, row=part.row + row)
