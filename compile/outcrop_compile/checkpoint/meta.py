"""Meta's own layout: params.json and consolidated.NN.pth, one file per model-parallel rank.

torch is needed to read .pth files and is imported when the first one is opened.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outcrop_compile.checkpoint.arrays import Array
from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.fields import Fields
from outcrop_compile.checkpoint.model import Checkpoint
from outcrop_compile.checkpoint.names import ROTARY, canonical_shapes, kind_of, match, stored_name
from outcrop_compile.checkpoint.tensors import Piece, Shape, StoredTensor
from outcrop_compile.config import LlamaConfig, RopeScaling

if TYPE_CHECKING:
    import torch

PARAMS = "params.json"
SHARDS = "consolidated.*.pth"

# Kind: the file's name for it, and the axes along which model-parallel ranks may hold it. The embedding
# is split by vocabulary since Llama 3 (VocabParallelEmbedding) and was split by column before.
_LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "embed": ("tok_embeddings.weight", (0, 1)),
    "attn_norm": ("layers.{i}.attention_norm.weight", ()),
    "q": ("layers.{i}.attention.wq.weight", (0,)),
    "k": ("layers.{i}.attention.wk.weight", (0,)),
    "v": ("layers.{i}.attention.wv.weight", (0,)),
    "o": ("layers.{i}.attention.wo.weight", (1,)),
    "mlp_norm": ("layers.{i}.ffn_norm.weight", ()),
    "gate": ("layers.{i}.feed_forward.w1.weight", (0,)),
    "up": ("layers.{i}.feed_forward.w3.weight", (0,)),
    "down": ("layers.{i}.feed_forward.w2.weight", (1,)),
    "norm": ("norm.weight", ()),
    "lm_head": ("output.weight", (0,)),
}
_NAMES = {kind: name for kind, (name, _) in _LAYOUT.items()}

# (dim, n_layers) of Llama 3.2 1B and 3B. params.json says only `use_scaled_rope`; the factor, 8 in
# Llama 3.1, is 32 in these two, as their Hugging Face configurations and converter have it.
_FACTOR_32 = {(2048, 16), (3072, 28)}

Tensors = Mapping[str, "torch.Tensor"]


def open_meta(path: Path) -> Checkpoint:
    """Open a directory that has params.json and consolidated.*.pth. Raises CheckpointError, OSError."""
    shards = [_load(file) for file in _shard_files(path)]
    config = read_params(path / PARAMS, world=len(shards), tied=_is_tied(shards[0]))
    whole: dict[str, Shape] = {}
    axes: dict[str, int] = {}
    for name, shape in canonical_shapes(config):
        source = stored_name(name, _NAMES)
        if any(source not in shard for shard in shards):
            continue  # `match` says so
        part = _common_shape(source, shards, path)
        axes[name] = _axis(part, shape, len(shards), _LAYOUT[kind_of(name)][1])
        whole[source] = _merged(part, len(shards), axes[name])
    for shard in shards:
        for source in shard:
            whole.setdefault(source, tuple(shard[source].shape))
    ignored = {"rope.freqs"} | ({_NAMES["lm_head"]} if config.tie_embeddings else set())
    names = match(config, _NAMES, whole, str(path), ignored)
    tensors = {
        name: StoredTensor(
            whole[source],
            _pieces([_mapped(shard[source], source, path) for shard in shards], axes[name]),
            config.head_dim if kind_of(name) in ROTARY else 0,
        )
        for name, source in names.items()
    }
    return Checkpoint(path, "meta", config, tensors)


def _shard_files(path: Path) -> list[Path]:
    files = sorted(path.glob(SHARDS))
    for rank, file in enumerate(files):
        if file.name != f"consolidated.{rank:02d}.pth":
            raise CheckpointError(
                f"{path}: shard 'consolidated.{rank:02d}.pth' is missing (found {file.name!r})"
            )
    return files


def _load(path: Path) -> Tensors:
    """The tensors of one shard, memory-mapped. Nothing but tensors is ever unpickled."""
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            f"{path}: reading Meta's .pth files needs PyTorch: pip install 'outcrop[cpu]'"
        ) from None
    try:
        shard = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: truncated, or not a file of tensors ({reason})") from None
    if not isinstance(shard, dict) or not all(isinstance(value, torch.Tensor) for value in shard.values()):
        raise CheckpointError(f"{path}: does not hold a dictionary of tensors")
    return shard


def read_params(path: Path, *, world: int, tied: bool) -> LlamaConfig:
    """A Llama 3 params.json. world: how many consolidated.*.pth files there are; tied: whether they
    leave out an output matrix, which params.json does not say. Raises CheckpointError, OSError."""
    fields = Fields.of_json(path)
    fields.forbid("quantization_args", "lora_args", "vision_model", "moe_args")
    if fields.get("vision_chunk_size", -1) != -1:
        raise fields.refuse("vision_chunk_size", "text models")
    dim, heads = fields.integer("dim"), fields.integer("n_heads")
    layers, kv_heads = fields.integer("n_layers"), fields.integer("n_kv_heads", heads)
    for name, count in (("n_heads", heads), ("n_kv_heads", kv_heads)):
        if count % world:
            raise fields.refuse(name, f"a multiple of the {world} consolidated.*.pth files")
    if dim % heads:
        raise fields.refuse("dim", f"a multiple of n_heads ({heads})")
    scaling = None
    if fields.flag("use_scaled_rope", False):
        factor = 32.0 if (dim, layers) in _FACTOR_32 else 8.0
        scaling = RopeScaling(fields.number("rope_scaling_factor", factor), 1.0, 4.0, 8192)
    return fields.config(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=dim,
        intermediate_size=_intermediate_size(fields, dim),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim // heads,
        context=131072 if scaling else 8192,  # Meta's files do not say; these are what the models are
        rms_norm_eps=fields.number("norm_eps", 1e-5),
        rope_theta=fields.number("rope_theta"),
        rope_scaling=scaling,
        tie_embeddings=tied,
    )


def _intermediate_size(fields: Fields, dim: int) -> int:
    """Meta's rule (`FeedForward.__init__`): 2/3 of 4*dim, scaled, rounded up to a multiple."""
    multiple_of = fields.integer("multiple_of", 256)
    size = int(fields.number("ffn_dim_multiplier", 1.0) * int(8 * dim / 3))
    return -(-size // multiple_of) * multiple_of


def _is_tied(tensors: Tensors) -> bool:
    """No output matrix of its own: left out, or saved as a second name of the embedding's storage."""
    embed, head = tensors.get(_NAMES["embed"]), tensors.get(_NAMES["lm_head"])
    return head is None or (embed is not None and head.data_ptr() == embed.data_ptr())


def _common_shape(name: str, shards: list[Tensors], path: Path) -> Shape:
    """The shape of one tensor's shards, which all ranks hold equal parts of."""
    shapes = [tuple(shard[name].shape) for shard in shards]
    for rank, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {list(shape)} in consolidated.{rank:02d}.pth"
                f" and {list(shapes[0])} in consolidated.00.pth"
            )
    return shapes[0]


def _axis(part: Shape, whole: Shape, world: int, allowed: tuple[int, ...]) -> int:
    """The axis along which shards make up the whole; -1 where every rank holds all of it. A part that
    fits no axis gives the first one: the mismatch is then reported against the whole."""
    fitting = [axis for axis in allowed if _merged(part, world, axis) == whole]
    return (fitting or list(allowed) or [-1])[0]


def _merged(part: Shape, world: int, axis: int) -> Shape:
    return tuple(size * world if index == axis else size for index, size in enumerate(part))


def _pieces(shards: list[Array], axis: int) -> tuple[Piece, ...]:
    if axis < 0:
        return (Piece(shards[0].reshape(1, -1), shards[0].size, _as_stored),)
    pieces, corner = [], [0, 0]
    for data in shards:
        pieces.append(Piece(data, data.shape[1], _as_stored, row=corner[0], column=corner[1]))
        corner[axis] += data.shape[axis]
    return tuple(pieces)


def _mapped(tensor: Any, name: str, path: Path) -> Array:
    """A torch tensor's memory as numpy sees it; bfloat16 as its bits."""
    kind = str(tensor.dtype).removeprefix("torch.")
    bits = tensor.detach()
    if kind == "bfloat16":
        import torch

        array: Array = bits.view(torch.uint16).numpy()
        return array
    if kind not in ("float32", "float16"):
        raise CheckpointError(
            f"{path}: tensor {name!r} has type {kind}; supported: bfloat16, float16, float32"
        )
    return bits.numpy()  # type: ignore[no-any-return]


def _as_stored(data: Array) -> Array:
    return data
