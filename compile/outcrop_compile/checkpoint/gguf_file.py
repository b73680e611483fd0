"""GGUF files of architecture "llama". The `gguf` package knows the quantised block formats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from outcrop_compile.checkpoint import rope
from outcrop_compile.checkpoint.arrays import Array, map_file
from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.fields import Fields
from outcrop_compile.checkpoint.gguf_header import GGUFHeader, TensorEntry, read_header
from outcrop_compile.checkpoint.groups import GROUPS
from outcrop_compile.checkpoint.model import Checkpoint
from outcrop_compile.checkpoint.names import ROTARY, kind_of, match
from outcrop_compile.checkpoint.tensors import Piece, StoredTensor
from outcrop_compile.config import LlamaConfig

NAMES = {
    "embed": "token_embd.weight",
    "attn_norm": "blk.{i}.attn_norm.weight",
    "q": "blk.{i}.attn_q.weight",
    "k": "blk.{i}.attn_k.weight",
    "v": "blk.{i}.attn_v.weight",
    "o": "blk.{i}.attn_output.weight",
    "mlp_norm": "blk.{i}.ffn_norm.weight",
    "gate": "blk.{i}.ffn_gate.weight",
    "up": "blk.{i}.ffn_up.weight",
    "down": "blk.{i}.ffn_down.weight",
    "norm": "output_norm.weight",
    "lm_head": "output.weight",
}
_ROPE_DIVISORS = "rope_freqs.weight"


def _view(dtype: str, rows: Array) -> Array:
    return rows.view(dtype)


# Rows of bytes to rows of numbers. `dequantize_rows` is what `quants.dequantize` calls on 16 rows at a
# time; the readers here pass it a cache-sized block instead, which is four times faster.
_DECODERS: dict[GGMLQuantizationType, Callable[[Array], Array]] = {
    GGMLQuantizationType.F32: partial(_view, "<f4"),
    GGMLQuantizationType.F16: partial(_view, "<f2"),
    GGMLQuantizationType.BF16: partial(_view, "<u2"),
    GGMLQuantizationType.Q8_0: quants.Q8_0.dequantize_rows,
    GGMLQuantizationType.Q4_0: quants.Q4_0.dequantize_rows,
    GGMLQuantizationType.Q4_1: quants.Q4_1.dequantize_rows,
    GGMLQuantizationType.Q4_K: quants.Q4_K.dequantize_rows,
    GGMLQuantizationType.Q6_K: quants.Q6_K.dequantize_rows,
}


def open_gguf(path: Path, file: Path) -> Checkpoint:
    """Open one .gguf file; `path` is what the user named, it or its directory. Raises CheckpointError
    and OSError."""
    header, data = read_header(file), map_file(file)
    stored = {name: _piece(entry, data, file) for name, entry in header.tensors.items()}
    config = _read_config(header, stored.get(_ROPE_DIVISORS))
    shapes = {name: entry.shape for name, entry in header.tensors.items()}
    names = match(config, NAMES, shapes, str(file), {_ROPE_DIVISORS})
    tensors = {
        name: StoredTensor(
            shapes[source], (stored[source],), config.head_dim if kind_of(name) in ROTARY else 0
        )
        for name, source in names.items()
    }
    return Checkpoint(path, "gguf", config, tensors)


def _piece(entry: TensorEntry, data: Array, file: Path) -> Piece:
    """A tensor's bytes, a row of blocks per row of the tensor, checked to lie within the file."""
    kind = next((kind for kind in GGMLQuantizationType if kind == entry.kind), None)
    if kind is None or kind not in _DECODERS:
        found = entry.kind if kind is None else kind.name
        supported = ", ".join(kind.name for kind in _DECODERS)
        raise CheckpointError(
            f"{file}: tensor {entry.name!r} has quantisation {found}; supported: {supported}"
        )
    if len(entry.shape) not in (1, 2) or 0 in entry.shape:
        raise CheckpointError(f"{file}: tensor {entry.name!r} has shape {list(entry.shape)}")
    height, width = entry.shape if len(entry.shape) == 2 else (1, *entry.shape)
    numbers, size = GGML_QUANT_SIZES[kind]
    if width % numbers:
        raise CheckpointError(
            f"{file}: tensor {entry.name!r} has rows of {width}, not a multiple of {kind.name}'s {numbers}"
        )
    row_bytes = width // numbers * size
    end = entry.offset + height * row_bytes
    if end > len(data):
        raise CheckpointError(
            f"{file}: truncated: the file has {len(data)} bytes, tensor {entry.name!r} ends at byte {end}"
        )
    rows = data[entry.offset : end].reshape(height, row_bytes)
    return Piece(rows, width, _DECODERS[kind], groups=GROUPS.get(kind))


def _read_config(header: GGUFHeader, divisors: Piece | None) -> LlamaConfig:
    fields = Fields(str(header.path), header.metadata)
    fields.expect("general.architecture", "llama")
    fields.expect("split.count", 0, 1)
    fields.expect("llama.expert_count", 0)
    fields.expect("llama.rope.scaling.type", "none")
    hidden, heads = fields.integer("llama.embedding_length"), fields.integer("llama.attention.head_count")
    head_dim = fields.integer("llama.attention.key_length", max(1, hidden // heads))
    fields.expect("llama.attention.value_length", head_dim)
    fields.expect("llama.rope.dimension_count", head_dim)
    theta = _shortest(fields.number("llama.rope.freq_base", 10000.0))
    scaling = None
    if divisors is not None:
        table = divisors.decode(divisors.data).reshape(-1)
        try:
            scaling = rope.from_divisors(table, theta, head_dim)
        except ValueError as error:
            raise CheckpointError(f"{header.path}: tensor {_ROPE_DIVISORS!r} is {error}") from None
    embed = header.tensors.get(NAMES["embed"])
    return fields.config(
        vocab_size=fields.integer("llama.vocab_size", embed.shape[0] if embed else None),
        hidden_size=hidden,
        intermediate_size=fields.integer("llama.feed_forward_length"),
        num_layers=fields.integer("llama.block_count"),
        num_heads=heads,
        num_kv_heads=fields.integer("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        context=fields.integer("llama.context_length"),
        rms_norm_eps=_shortest(fields.number("llama.attention.layer_norm_rms_epsilon")),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=NAMES["lm_head"] not in header.tensors,
    )


def _shortest(value: float) -> float:
    """GGUF keeps float32: the shortest decimal that rounds to it is the number its author wrote."""
    return float(str(np.float32(value)))
