"""The same model in every format gives the same canonical tensors and configuration."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import demo
import numpy as np
import pytest
import torch
from tiny_models import (
    LLAMA_31,
    LLAMA_32,
    canonical,
    gguf_name,
    read_gguf,
    tiny_model,
    write_gguf,
    write_huggingface,
    write_meta,
)
from transformers import AutoModelForCausalLM

from outcrop_compile.checkpoint import Checkpoint, open_checkpoint
from outcrop_compile.config import LlamaConfig, RopeScaling

SHAPES = {"3.1": LLAMA_31, "3.2": LLAMA_32}
FLOATS = ("float32", "bfloat16", "float16")
QUANTISED = ("Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    return tiny_model(SHAPES[request.param])


def assert_same(checkpoint: Checkpoint, expected: dict[str, np.ndarray]) -> None:
    assert checkpoint.names() == list(expected)
    for name, tensor in expected.items():
        found = checkpoint.read(name)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert checkpoint.shape(name) == tensor.shape
        np.testing.assert_array_equal(found, tensor, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sharded", [False, True])
def test_huggingface(model, tmp_path, dtype, sharded):
    write_huggingface(model, tmp_path, dtype=dtype, sharded=sharded)
    assert (tmp_path / "model.safetensors").exists() is not sharded
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "huggingface"
    assert_same(checkpoint, expected_in(model, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_meta(model, tmp_path, dtype):
    checkpoint = open_checkpoint(write_meta(model, tmp_path, dtype=dtype))
    assert checkpoint.format == "meta"
    assert_same(checkpoint, expected_in(model, dtype))


@pytest.mark.parametrize("embed_axis", [0, 1])
def test_meta_shards_are_merged(tmp_path, embed_axis):
    model = tiny_model(LLAMA_32, tie_word_embeddings=False)
    checkpoint = open_checkpoint(write_meta(model, tmp_path, shards=2, embed_axis=embed_axis))
    assert_same(checkpoint, canonical(model))


def test_meta_reads_parts_across_shards(tmp_path):
    model = tiny_model(LLAMA_32)
    checkpoint = open_checkpoint(write_meta(model, tmp_path, shards=2))
    for name, rows, columns in [("layers.1.q", (64, 192), (3, 200)), ("layers.0.down", (10, 99), (300, 700))]:
        out = np.empty((rows[1] - rows[0], columns[1] - columns[0]), np.float32)
        checkpoint.read_into(name, out, slice(*rows), slice(*columns))
        np.testing.assert_array_equal(out, canonical(model)[name][slice(*rows), slice(*columns)])


def test_meta_head_that_shares_the_embedding_is_tied(tmp_path):
    write_meta(tiny_model(LLAMA_32), tmp_path)
    file = tmp_path / "consolidated.00.pth"
    tensors = torch.load(file, weights_only=True)
    torch.save(tensors | {"output.weight": tensors["tok_embeddings.weight"]}, file)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.tie_embeddings
    assert "lm_head" not in checkpoint.names()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_gguf_unquantised(model, tmp_path, kind):
    checkpoint = open_checkpoint(write_gguf(model, tmp_path / "model.gguf", kind=kind))
    assert checkpoint.format == "gguf"
    assert_same(checkpoint, expected_in(model, "float16" if kind == "F16" else "float32"))


@pytest.mark.parametrize("kind", QUANTISED)
def test_gguf_quantised(model, tmp_path, kind):
    file = write_gguf(model, tmp_path / "model.gguf", kind=kind)
    raw = read_gguf(file, model.config.head_dim)
    checkpoint = open_checkpoint(tmp_path)  # the directory: it holds exactly one
    assert_same(checkpoint, {name: raw[gguf_name(name)] for name in canonical(model)})


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_quantisation_error_is_small(model, tmp_path, kind):
    """Guards the oracle above: rows in a wrong order would be far from the original weights."""
    checkpoint = open_checkpoint(write_gguf(model, tmp_path / "model.gguf", kind=kind))
    for name, tensor in canonical(model).items():
        assert np.abs(checkpoint.read(name) - tensor).max() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_every_format_gives_the_same_configuration(shape, tmp_path):
    model = tiny_model(SHAPES[shape])
    config, factor = model.config, {"3.1": 8.0, "3.2": 32.0}[shape]
    expected = LlamaConfig(
        vocab_size=320,
        hidden_size=256,
        intermediate_size=768,
        num_layers=2,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        context=131072,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(factor, 1.0, 4.0, 8192),
        tie_embeddings=shape == "3.2",
    )
    assert open_checkpoint(write_huggingface(model, tmp_path / "hf")).config == expected
    assert open_checkpoint(write_gguf(model, tmp_path / "model.gguf")).config == expected
    params = {"rope_scaling_factor": factor}  # a toy's size does not tell 3.1 from 3.2
    assert open_checkpoint(write_meta(model, tmp_path / "meta", params=params)).config == expected


def test_head_size_is_independent_of_the_hidden_size(tmp_path):
    model = tiny_model(LLAMA_32, head_dim=32, num_attention_heads=4)
    assert_same(open_checkpoint(write_huggingface(model, tmp_path / "hf")), canonical(model))
    assert_same(open_checkpoint(write_gguf(model, tmp_path / "model.gguf")), canonical(model))


def test_tied_model_may_save_its_head_twice(tmp_path):
    """Some exporters write lm_head.weight although config.json says it is tied."""
    write_huggingface(tiny_model(LLAMA_32, tie_word_embeddings=False), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.tie_embeddings
    assert "lm_head" not in checkpoint.names()


def test_threads_read_the_same(tmp_path):
    model = tiny_model(LLAMA_31)
    checkpoint = open_checkpoint(write_gguf(model, tmp_path / "model.gguf", kind="Q4_1"))
    names = checkpoint.names() * 3
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(checkpoint.read, names))
    for name, found in zip(names, together, strict=True):
        np.testing.assert_array_equal(found, checkpoint.read(name))


def test_gguf_equals_transformers(model, tmp_path):
    """transformers' own reading of llama.cpp's layout, so that writer and reader cannot err together."""
    write_gguf(model, tmp_path / "model.gguf", kind="Q4_1")
    expected = canonical(AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf"))
    assert_same(open_checkpoint(tmp_path), expected)


def test_demo_model():
    checkpoint = open_checkpoint(demo.PATH)
    assert checkpoint.config == LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        context=8192,
        rms_norm_eps=1e-5,
        rope_theta=100000.0,
        rope_scaling=None,
        tie_embeddings=True,
    )
    for name in checkpoint.names():
        assert 0.001 < np.abs(checkpoint.read(name)).mean() < 10, name


@pytest.mark.slow  # transformers takes half a minute to read a vocabulary
def test_demo_model_equals_transformers():
    expected = canonical(AutoModelForCausalLM.from_pretrained(demo.PATH.parent, gguf_file=demo.PATH.name))
    assert_same(open_checkpoint(demo.PATH), expected)


def test_neither_importing_nor_loading_needs_torch(tmp_path):
    """All of it works in a process in which torch cannot be imported."""
    model = tiny_model(LLAMA_31)
    write_huggingface(model, tmp_path / "hf")
    write_gguf(model, tmp_path / "model.gguf", kind="Q8_0")
    write_meta(model, tmp_path / "meta")
    program = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from outcrop_compile.checkpoint import CheckpointError, open_checkpoint
from outcrop_compile.weights import load_weights
folder = Path(sys.argv[1])
for path in (folder / "hf", folder / "model.gguf"):
    load_weights(open_checkpoint(path), dtype="bfloat16")
try:
    open_checkpoint(folder / "meta")
except CheckpointError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "pip install 'outcrop[cpu]'" in result.stdout


def expected_in(model, dtype: str) -> dict[str, np.ndarray]:
    """The tiny models are exact in bfloat16, but their smallest weights are not in float16."""
    return {
        name: tensor.astype(np.float16).astype(np.float32) if dtype == "float16" else tensor
        for name, tensor in canonical(model).items()
    }
