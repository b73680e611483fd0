"""Hugging Face directories: config.json, and model.safetensors whole or in indexed shards."""

from __future__ import annotations

from pathlib import Path

from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.fields import Fields, read_json
from outcrop_compile.checkpoint.model import Checkpoint
from outcrop_compile.checkpoint.names import match
from outcrop_compile.checkpoint.safetensors_file import SafetensorsTensor, read_tensors
from outcrop_compile.checkpoint.tensors import StoredTensor
from outcrop_compile.config import LlamaConfig, RopeScaling

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

NAMES = {
    "embed": "model.embed_tokens.weight",
    "attn_norm": "model.layers.{i}.input_layernorm.weight",
    "q": "model.layers.{i}.self_attn.q_proj.weight",
    "k": "model.layers.{i}.self_attn.k_proj.weight",
    "v": "model.layers.{i}.self_attn.v_proj.weight",
    "o": "model.layers.{i}.self_attn.o_proj.weight",
    "mlp_norm": "model.layers.{i}.post_attention_layernorm.weight",
    "gate": "model.layers.{i}.mlp.gate_proj.weight",
    "up": "model.layers.{i}.mlp.up_proj.weight",
    "down": "model.layers.{i}.mlp.down_proj.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}


def open_huggingface(path: Path) -> Checkpoint:
    """Open a directory that has config.json and safetensors. Raises CheckpointError, OSError."""
    config = read_config(path / CONFIG)
    stored = read_tensors(path / WEIGHTS) if (path / WEIGHTS).exists() else _read_shards(path)
    # A table that can be computed, which old conversions saved; and the head that a tied model saved twice.
    ignored = {name for name in stored if name.endswith("rotary_emb.inv_freq")}
    if config.tie_embeddings:
        ignored.add(NAMES["lm_head"])
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    tensors = {
        name: StoredTensor(shapes[source], (stored[source].piece(source, str(path)),))
        for name, source in match(config, NAMES, shapes, str(path), ignored).items()
    }
    return Checkpoint(path, "huggingface", config, tensors)


def read_config(path: Path) -> LlamaConfig:
    """A Llama config.json, as transformers 4 or 5 writes it. Raises CheckpointError, OSError."""
    fields = Fields.of_json(path)
    fields.expect("model_type", "llama")
    fields.expect("hidden_act", "silu", "swish")
    fields.expect("attention_bias", False)
    fields.expect("mlp_bias", False)
    fields.forbid("quantization_config")
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    if not fields.get("head_dim") and hidden % heads:
        raise fields.refuse("hidden_size", f"a multiple of num_attention_heads {heads}, or a head_dim")
    context = fields.integer("max_position_embeddings")
    theta, scaling = _read_rope(fields, context)
    return fields.config(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=fields.integer("head_dim", hidden // heads),
        context=context,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
    )


def _read_rope(fields: Fields, context: int) -> tuple[float, RopeScaling | None]:
    """transformers 5 keeps rope_theta and the scaling together in `rope_parameters`; before, they were
    the fields `rope_theta` and `rope_scaling` (whose type was once called `type`)."""
    rope = fields.section("rope_parameters") or fields.section("rope_scaling")
    if rope is None:
        return fields.number("rope_theta", 10000.0), None
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    rope.expect("partial_rotary_factor", 1.0)
    kind = rope.expect("rope_type" if rope.get("rope_type") else "type", "default", "llama3")
    if kind == "default":
        return theta, None
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if low >= high:
        raise rope.refuse("high_freq_factor", f"a number above low_freq_factor ({low})")
    return theta, RopeScaling(
        factor=rope.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=rope.integer("original_max_position_embeddings", context),
    )


def _read_shards(path: Path) -> dict[str, SafetensorsTensor]:
    """The tensors that the index lists, each from the shard it names."""
    wanted = _weight_map(path / INDEX)
    shards: dict[str, dict[str, SafetensorsTensor]] = {}
    for name, file in wanted.items():
        if file not in shards:
            if not (path / file).exists():
                raise CheckpointError(f"{path}: shard {file!r} is missing ({INDEX} has {name!r} in it)")
            shards[file] = read_tensors(path / file)
        if name not in shards[file]:
            raise CheckpointError(f"{path / file}: no tensor {name!r}, though {INDEX} says it is there")
    return {name: shards[file][name] for name, file in wanted.items()}


def _weight_map(path: Path) -> dict[str, str]:
    """The index's tensor -> file table; files must lie beside the index (links are fine: the Hugging
    Face cache is made of them)."""
    table = read_json(path).get("weight_map")
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: weight_map is not an object of tensor names and files")
    for name, file in table.items():
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".."):
            raise CheckpointError(f"{path}: tensor {name!r} is in {file!r}, not a file of this directory")
    return table
