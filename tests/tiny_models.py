"""Random Llamas of a few hundred kilobytes, and writers for every checkpoint format.

The writers are made of the other projects' own tools and rules (transformers' `save_pretrained`, Meta's
sharding, llama.cpp's conversion), never of the readers under test.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROPE_31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}  # fmt: skip
ROPE_32 = ROPE_31 | {"factor": 32.0}

# hidden 256 and intermediate 768 are whole blocks of every quantisation, and what Meta's rule makes of 256.
_COMMON: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 2,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAMA_31: dict[str, Any] = _COMMON | {
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128, "tie_word_embeddings": False,
    "rope_parameters": {"rope_theta": 500000.0, **ROPE_31},
}  # fmt: skip
LLAMA_32: dict[str, Any] = _COMMON | {
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "tie_word_embeddings": True,
    "rope_parameters": {"rope_theta": 500000.0, **ROPE_32},
}  # fmt: skip


def tiny_model(shape: dict[str, Any], *, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random float32 model; `changes` override the shape's Hugging Face configuration. Its weights are
    exact in bfloat16, so that every unquantised format holds the same numbers."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**(shape | changes))).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.1 * torch.randn_like(weight))
            weight.copy_(weight.to(torch.bfloat16).float())
    return model


def canonical(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    """The model's weights under Outcrop's names."""
    base, tensors = model.model, {}
    tensors["embed"] = base.embed_tokens.weight
    for index, layer in enumerate(base.layers):
        prefix = f"layers.{index}."
        tensors[prefix + "attn_norm"] = layer.input_layernorm.weight
        for part in "qkvo":
            tensors[prefix + part] = getattr(layer.self_attn, f"{part}_proj").weight
        tensors[prefix + "mlp_norm"] = layer.post_attention_layernorm.weight
        for part in ("gate", "up", "down"):
            tensors[prefix + part] = getattr(layer.mlp, f"{part}_proj").weight
    tensors["norm"] = base.norm.weight
    if not model.config.tie_word_embeddings:
        tensors["lm_head"] = model.lm_head.weight
    return {name: weight.detach().numpy() for name, weight in tensors.items()}


def write_huggingface(
    model: LlamaForCausalLM, folder: Path, *, dtype: str = "bfloat16", sharded: bool = False
) -> Path:
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="500KB" if sharded else "5GB")
    return folder


def write_meta(
    model: LlamaForCausalLM,
    folder: Path,
    *,
    shards: int = 1,
    dtype: str = "bfloat16",
    embed_axis: int = 0,
    params: dict[str, Any] | None = None,
) -> Path:
    """Meta's layout; `params` adds to params.json or overrides it."""
    config = model.config
    axes = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0,
            "tok_embeddings": embed_axis}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, array in canonical(model).items():
        weight = torch.from_numpy(array).to(getattr(torch, dtype))
        if name.endswith((".q", ".k")):
            weight = interleave(weight, config.head_dim)
        tensors[meta_name(name)] = weight
    for rank in range(shards):
        shard = {"rope.freqs": torch.ones(config.head_dim // 2)}
        for name, weight in tensors.items():
            axis = axes.get(name.split(".")[-2])
            shard[name] = weight.clone() if axis is None else weight.chunk(shards, axis)[rank].clone()
        torch.save(shard, folder / f"consolidated.{rank:02d}.pth")
    sizes = {
        "dim": config.hidden_size, "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads, "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size, "multiple_of": 256,
        "norm_eps": config.rms_norm_eps, "rope_theta": config.rope_parameters["rope_theta"],
        "use_scaled_rope": config.rope_parameters["rope_type"] == "llama3",
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(sizes | (params or {})))
    return folder


def write_gguf(model: LlamaForCausalLM, file: Path, *, kind: str = "F32", **metadata: Any) -> Path:
    """A file as llama.cpp's converter writes it; matrices in one quantisation. Kinds that the gguf package
    cannot quantise get random blocks instead. `metadata` adds `llama.*` integers, dots as underscores."""
    config, tensors = model.config, canonical(model)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_array("tokenizer.ggml.tokens", [f"<{i}>" for i in range(config.vocab_size)])
    for key, value in metadata.items():
        writer.add_uint32("llama." + key.replace("__", "."), value)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_freqs(config))
    for name, array in tensors.items():
        if name.endswith((".q", ".k")):
            array = interleave(torch.from_numpy(array), config.head_dim).numpy()
        if array.ndim == 1:
            writer.add_tensor(gguf_name(name), array)
        else:
            quantisation = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(gguf_name(name), _encode(array, quantisation), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def read_gguf(file: Path, head_dim: int) -> dict[str, np.ndarray]:
    """Canonical tensors of a file that `write_gguf` wrote, through the gguf package alone."""
    tensors = {}
    for tensor in gguf.GGUFReader(file).tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            heads = array.reshape(-1, head_dim // 2, 2, array.shape[1])
            array = np.concatenate([heads[:, :, 0], heads[:, :, 1]], axis=1).reshape(array.shape)
        tensors[tensor.name] = array
    return tensors


def interleave(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """q or k rows from Hugging Face's order to Meta's and llama.cpp's (`permute` in its converter)."""
    rows, width = weight.shape
    return weight.reshape(rows // head_dim, 2, head_dim // 2, width).swapaxes(1, 2).reshape(rows, width)


def rope_freqs(config: LlamaConfig) -> np.ndarray:
    """The table that llama.cpp's converter makes of Llama 3.1's rope parameters."""
    rope, factors = config.rope_parameters, []
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    for exponent in torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim:
        wavelength = float(2 * math.pi * rope["rope_theta"] ** exponent)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            turns = rope["original_max_position_embeddings"] / wavelength
            smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def _encode(array: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """A matrix in llama.cpp's blocks, bytes [rows, bytes of a row] (or float32, float16 as such)."""
    if kind.name not in ("Q4_K", "Q6_K"):
        return gguf.quants.quantize(array, kind)
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(array.size)
    blocks = random.integers(0, 256, (array.size // numbers, size), np.uint8)
    scales = {"Q4_K": slice(0, 4), "Q6_K": slice(208, 210)}[kind.name]  # float16, anywhere near 0.001
    small = random.uniform(5e-4, 2e-3, (len(blocks), (scales.stop - scales.start) // 2)).astype(np.float16)
    blocks[:, scales] = small.view(np.uint8)
    return blocks.reshape(array.shape[0], -1)


def meta_name(name: str) -> str:
    parts = {
        "embed": "tok_embeddings", "attn_norm": "attention_norm", "q": "attention.wq", "k": "attention.wk",
        "v": "attention.wv", "o": "attention.wo", "mlp_norm": "ffn_norm", "gate": "feed_forward.w1",
        "up": "feed_forward.w3", "down": "feed_forward.w2", "norm": "norm", "lm_head": "output",
    }  # fmt: skip
    prefix, _, kind = name.rpartition(".")
    return f"{prefix}.{parts[kind]}.weight".lstrip(".")


def gguf_name(name: str) -> str:
    parts = {
        "embed": "token_embd", "attn_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v",
        "o": "attn_output", "mlp_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
        "norm": "output_norm", "lm_head": "output",
    }  # fmt: skip
    prefix, _, kind = name.rpartition(".")
    return f"{prefix.replace('layers', 'blk')}.{parts[kind]}.weight".lstrip(".")
