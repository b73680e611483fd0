"""The same weights in every peer's format.

python -m benchmarks.peers.weights [smollm2-135m] [llama-1b-shape]

"smollm2-135m" is the demo model, its 4-bit blocks dequantised and rounded once to bfloat16.
"llama-1b-shape" has the sizes of Llama 3.2 1B and random weights, with the demo model's tokenizer filled up
to the size of the vocabulary. Each becomes a Hugging Face directory, which is what Outcrop, vLLM and
transformers read and OpenVINO's converter starts from, and two GGUF files for llama.cpp: one with the same
bfloat16 values, one with them in Q8_0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import safetensors
from benchmarks.peers.models import DEMO, LLAMA_1B, MODELS, Model
from gguf import quants
from gguf.constants import GGMLQuantizationType, GGUFValueType, LlamaFileType

from outcrop_compile.checkpoint import Checkpoint, gguf_file, huggingface, open_checkpoint
from outcrop_compile.checkpoint.arrays import to_bfloat16
from outcrop_compile.checkpoint.names import ROTARY, canonical_shapes, kind_of, stored_name
from outcrop_compile.config import LlamaConfig
from outcrop_compile.shapes import SHAPES

Array = npt.NDArray[Any]
Tensors = Iterator[tuple[str, Array]]
"""Canonical names, and bfloat16 bits (uint16) in Hugging Face's order."""

_UNUSED = 5  # of tokenizer.ggml.token_type
_GGUF_TYPES = {"bf16": GGMLQuantizationType.BF16, "q8_0": GGMLQuantizationType.Q8_0}
_FILE_TYPES = {"bf16": LlamaFileType.MOSTLY_BF16, "q8_0": LlamaFileType.MOSTLY_Q8_0}

_LLAMA_1B = replace(SHAPES["Llama-3.2-1B"].config, context=8192, rope_scaling=None)


def prepare(model: Model) -> None:
    """Write the files that are not there yet. A GGUF file is written last, so it tells a whole set."""
    if model.gguf("q8_0").exists():
        return
    if model is LLAMA_1B:
        model.directory.mkdir(parents=True, exist_ok=True)
        _write_tokenizer(model.directory, _LLAMA_1B.vocab_size)
        write_directory(model.directory, _LLAMA_1B, random_weights(_LLAMA_1B))
    else:
        write_demo(model.directory)
    checkpoint = open_checkpoint(model.directory)
    for kind in _GGUF_TYPES:
        unfinished = model.gguf(kind).with_suffix(".unfinished")
        write_gguf(unfinished, kind, checkpoint)
        unfinished.rename(model.gguf(kind))


def write_demo(folder: Path) -> None:
    """The demo model in Hugging Face's layout, bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    demo = open_checkpoint(DEMO)
    _write_tokenizer(folder, demo.config.vocab_size)
    write_directory(folder, demo.config, _rounded(demo))


def _rounded(checkpoint: Checkpoint) -> Tensors:
    for name in checkpoint.names():
        yield name, to_bfloat16(checkpoint.read(name))


def random_weights(config: LlamaConfig) -> Tensors:
    """Normal weights of the size that training starts from, norms of one."""
    generator = np.random.default_rng(1)
    for name, shape in canonical_shapes(config):
        if len(shape) == 1:
            values = np.ones(shape, np.float32)
        else:
            values = generator.standard_normal(shape, np.float32) * np.float32(0.02)
        yield name, to_bfloat16(values)


def config_fields(config: LlamaConfig) -> dict[str, Any]:
    """A config.json of these sizes, without rope_scaling."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }


def write_directory(folder: Path, config: LlamaConfig, tensors: Tensors) -> None:
    """config.json and model.safetensors in bfloat16."""
    (folder / huggingface.CONFIG).write_text(json.dumps(config_fields(config), indent=1))
    arrays = {stored_name(name, huggingface.NAMES): array for name, array in tensors}
    specs = {
        name: safetensors.TensorSpec(
            dtype="bfloat16", shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
        for name, array in arrays.items()
    }
    safetensors.serialize_file(specs, folder / huggingface.WEIGHTS, {"format": "pt"})


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(DEMO.parent, gguf_file=DEMO.name).save_pretrained(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {_unused(n): n for n in range(len(vocabulary), vocab_size)}
    path.write_text(json.dumps(tokenizer))


def _unused(token_id: int) -> str:
    return f"[unused{token_id}]"


def write_gguf(path: Path, kind: str, checkpoint: Checkpoint) -> None:
    """One file, its matrices as `kind` says ("bf16" or "q8_0"): the demo file's metadata with this model's
    sizes; q and k in llama.cpp's order."""
    config, quantised = checkpoint.config, _GGUF_TYPES[kind]
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=True)
    for name, (value, value_type, sub_type) in _metadata(config).items():
        writer.add_key_value(name, value, value_type, sub_type)
    writer.add_file_type(_FILE_TYPES[kind])
    for name in checkpoint.names():
        array = checkpoint.read(name)
        if kind_of(name) in ROTARY:
            halves = array.reshape(-1, 2, config.head_dim // 2, config.hidden_size)
            array = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)
        # llama.cpp takes norms in float32 alone.
        tensor_type = quantised if array.ndim == 2 else GGMLQuantizationType.F32
        stored = stored_name(name, gguf_file.NAMES)
        writer.add_tensor(stored, quants.quantize(array, tensor_type), raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _metadata(config: LlamaConfig) -> dict[str, tuple[Any, GGUFValueType, GGUFValueType | None]]:
    fields = {
        name: (field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
        for name, field in gguf.GGUFReader(DEMO).fields.items()
        if not name.startswith("GGUF.")
        and name not in ("general.architecture", "general.file_type", "general.quantization_version")
    }

    def change(name: str, value: Any) -> None:
        if name in fields:
            fields[name] = (value, *fields[name][1:])

    change("llama.vocab_size", config.vocab_size)
    change("llama.context_length", config.context)
    change("llama.embedding_length", config.hidden_size)
    change("llama.block_count", config.num_layers)
    change("llama.feed_forward_length", config.intermediate_size)
    change("llama.attention.head_count", config.num_heads)
    change("llama.attention.head_count_kv", config.num_kv_heads)
    change("llama.attention.key_length", config.head_dim)
    change("llama.attention.value_length", config.head_dim)
    change("llama.rope.dimension_count", config.head_dim)
    change("llama.rope.freq_base", config.rope_theta)
    tokens, kinds = fields["tokenizer.ggml.tokens"][0], fields["tokenizer.ggml.token_type"][0]
    missing = range(len(tokens), config.vocab_size)
    change("tokenizer.ggml.tokens", tokens + [_unused(n) for n in missing])
    change("tokenizer.ggml.token_type", kinds + [_UNUSED] * len(missing))
    if "tokenizer.ggml.scores" in fields:
        change("tokenizer.ggml.scores", fields["tokenizer.ggml.scores"][0] + [0.0] * len(missing))
    return fields


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="all, if none is named")
    for name in parser.parse_args().models or MODELS:
        prepare(MODELS[name])
        print(f"{name}: {MODELS[name].directory}")


if __name__ == "__main__":
    main()
