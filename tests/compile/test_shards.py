"""Weights on disk, a file a rank: together they are the model, and its ranks find the same tokens."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_processes
from safetensors import safe_open
from safetensors.torch import load_file
from sharded import POSITIONS, PROMPT, generate, load, run_rank, run_threads
from tiny_models import LLAMA_31, LLAMA_32, tiny_model, write_gguf, write_huggingface

from outcrop_compile.checkpoint import Checkpoint, open_checkpoint
from outcrop_compile.llama import PagedLlama, TensorParallel
from outcrop_compile.plan.memory import weight_bytes
from outcrop_compile.plan.request import Dtype, plain_type
from outcrop_compile.shards import shard_path, write_shard
from outcrop_compile.weights import WeightType, load_weights
from outcrop_kernels.quantised import Quantised
from outcrop_kernels.reference import dequantised, quantise_channels

AWKWARD: dict[str, Any] = LLAMA_32 | {"intermediate_size": 200, "vocab_size": 480}
"""The MLP's rows do not divide by 24."""


def write(
    checkpoint: Checkpoint, folder: Path, world: int, dtype: WeightType = "float32", plain: Any = "float32"
) -> None:
    for rank in range(world):
        write_shard(
            checkpoint, folder / shard_path(rank), rank=rank, world=world, dtype=dtype, plain=plain,
            max_positions=POSITIONS,
        )  # fmt: skip


def alone(checkpoint: Checkpoint, folder: Path) -> list[int]:
    """The tokens of the undivided model."""
    write(checkpoint, folder, 1)
    tokens = generate(load(checkpoint.config, folder), 12)
    assert len(set(tokens)) > 8  # else they would not show much
    return tokens


def test_two_processes_on_their_shards_find_the_tokens_of_one(tmp_path: Path) -> None:
    """With a head tied to embed, of which each has other parts."""
    source = write_huggingface(tiny_model(LLAMA_32), tmp_path / "model")
    checkpoint = open_checkpoint(source)
    write(checkpoint, tmp_path / "two", 2)
    run_processes(run_rank, 2, str(source), str(tmp_path / "two"), str(tmp_path))
    expected = alone(checkpoint, tmp_path / "one")
    for rank in range(2):
        assert np.load(tmp_path / f"tokens{rank}.npy").tolist() == expected


@pytest.mark.parametrize(
    ("world", "hidden", "heads", "kv_heads", "dim"),
    [(8, 130, 10, 2, 12), (8, 160, 32, 8, 4), (24, 160, 32, 8, 4), (24, 120, 15, 3, 8), (24, 112, 7, 1, 16)],
)
def test_many_ranks_find_the_tokens_of_one(
    world: int, hidden: int, heads: int, kv_heads: int, dim: int, tmp_path: Path
) -> None:
    """With heads, MLP rows and embedding columns that do not divide, so padded, and key-value heads that
    several ranks keep."""
    sizes = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": dim}
    sizes["hidden_size"] = hidden
    checkpoint = open_checkpoint(write_huggingface(tiny_model(AWKWARD | sizes), tmp_path / "model"))
    write(checkpoint, tmp_path / "many", world)
    found = run_threads(
        world, lambda parallel: generate(load(checkpoint.config, tmp_path / "many", parallel), 12)
    )
    assert found == [alone(checkpoint, tmp_path / "one")] * world


def test_a_shard_is_what_the_loader_reads(tmp_path: Path) -> None:
    """bfloat16, as a device has it."""
    checkpoint = open_checkpoint(write_huggingface(tiny_model(LLAMA_31), tmp_path / "model"))
    write(checkpoint, tmp_path, 2, "bfloat16", "bfloat16")
    for rank in range(2):
        found = load_file(tmp_path / shard_path(rank))
        wanted = load_weights(checkpoint, dtype="bfloat16", rank=rank, world=2)
        wanted["head"] = wanted.pop("lm_head")
        assert set(found) == {*wanted, "cos", "sin"}
        for name, array in wanted.items():
            assert found[name].dtype == torch.bfloat16
            assert isinstance(array, np.ndarray)
            np.testing.assert_array_equal(found[name].view(torch.uint16).numpy(), array, err_msg=name)
        assert found["cos"].shape == (POSITIONS, 64)
        assert found["cos"].dtype == torch.float32


@pytest.mark.parametrize("source", ["huggingface", "gguf"])
def test_int8_has_a_scale_for_each_output_feature(source: str, tmp_path: Path) -> None:
    """Also where the file has groups of its own: the device's matrix product knows one scale a feature."""
    model = tiny_model(LLAMA_32)
    path = (
        write_gguf(model, tmp_path / "model.gguf", kind="Q8_0")
        if source == "gguf"
        else write_huggingface(model, tmp_path / "model")
    )
    checkpoint = open_checkpoint(path)
    write(checkpoint, tmp_path, 2, "int8", "bfloat16")
    for rank in range(2):
        found = load_file(tmp_path / shard_path(rank))
        plain = load_weights(checkpoint, rank=rank, world=2)
        for name in ("layers.0.qkv", "layers.1.o", "layers.0.gate_up", "layers.1.down", "lm_head"):
            stored = name.replace("lm_head", "head")
            codes, scale = found[stored], found[stored + "_scale"]
            assert (codes.dtype, scale.dtype) == (torch.int8, torch.float32)
            numbers = plain[name]
            assert isinstance(numbers, np.ndarray)
            wanted = quantise_channels(torch.from_numpy(numbers))
            torch.testing.assert_close(codes, wanted.codes)
            torch.testing.assert_close(scale, wanted.scale)
            error = (dequantised(Quantised(codes, scale, None, 8)) - torch.from_numpy(numbers)).abs()
            assert (error <= scale * 0.5001).all()
        assert found["embed"].dtype == found["norm"].dtype == torch.bfloat16


def logits(model: PagedLlama) -> torch.Tensor:
    """float32 [T, V] of PROMPT."""
    positions = torch.arange(len(PROMPT), dtype=torch.int32)[None]
    with torch.inference_mode():
        tokens, blocks = torch.tensor([PROMPT], dtype=torch.int32), torch.ones((1, 1), dtype=torch.int32)
        return model.logits(model.hidden_states(tokens, positions, positions + 16, blocks))


def test_int8_weights_are_multiplied_as_what_they_stand_for(tmp_path: Path) -> None:
    """The chip's way of it (codes, then scales) against the reference's (dequantised matrices), and both
    against the unquantised model."""
    checkpoint = open_checkpoint(write_huggingface(tiny_model(LLAMA_32), tmp_path / "model"))
    write(checkpoint, tmp_path / "int8", 1, "int8", "float32")
    write(checkpoint, tmp_path / "plain", 1)
    model = load(checkpoint.config, tmp_path / "int8", target="neuron")
    assert {model.layers[0].qkv.dtype, model.head.dtype} == {torch.int8}
    got = logits(model)
    reference = logits(load(checkpoint.config, tmp_path / "int8"))
    torch.testing.assert_close(got, reference, rtol=0, atol=1e-5)
    exact = logits(load(checkpoint.config, tmp_path / "plain"))
    error = (got - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.02


@pytest.mark.parametrize("world", [2, 4])
def test_int8_ranks_together_are_near_one(world: int, tmp_path: Path) -> None:
    """Not equal: what is summed over ranks has a scale of each rank's own, which is finer."""
    shape = LLAMA_32 | {"tie_word_embeddings": False}
    checkpoint = open_checkpoint(write_huggingface(tiny_model(shape), tmp_path / "model"))
    write(checkpoint, tmp_path / "many", world, "int8", "float32")
    write(checkpoint, tmp_path / "plain", 1)
    exact = logits(load(checkpoint.config, tmp_path / "plain"))
    parts: list[torch.Tensor] = [torch.empty(0)] * world

    def run(parallel: TensorParallel) -> list[int]:
        parts[parallel.rank] = logits(load(checkpoint.config, tmp_path / "many", parallel, target="neuron"))
        return []

    run_threads(world, run)
    assert (torch.cat(parts, dim=-1) - exact).norm() / exact.norm() < 0.02


def test_a_shard_never_lies_in_memory(tmp_path: Path) -> None:
    """It is read straight into its mapped file: what is allocated are a few cache-sized blocks a thread."""
    model = tiny_model(LLAMA_32, vocab_size=40_000, num_hidden_layers=4)
    checkpoint = open_checkpoint(write_huggingface(model, tmp_path / "model"))
    tracemalloc.start()
    try:
        write(checkpoint, tmp_path, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / shard_path(0)).stat().st_size > 90e6
    assert peak < 14e6


def test_a_shard_that_is_there_is_kept_and_one_cut_off_is_not(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_huggingface(tiny_model(LLAMA_32), tmp_path / "model"))
    path = tmp_path / shard_path(0)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(
            checkpoint, path, rank=0, world=1, dtype="float32", plain="float32", max_positions=8,
            progress=stop,
        )  # fmt: skip
    assert not path.exists()
    write(checkpoint, tmp_path, 1)
    before = path.stat()
    write(checkpoint, tmp_path, 1)
    assert path.stat() == before


def test_the_header_is_one_that_safetensors_takes(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_huggingface(tiny_model(LLAMA_31), tmp_path / "model"))
    write(checkpoint, tmp_path, 1, "int8", "bfloat16")
    data = (tmp_path / shard_path(0)).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + length])
    assert entries.pop("__metadata__") == {"weight_layout": "outputs-first"}
    with safe_open(tmp_path / shard_path(0), "pt") as file:
        assert set(file.keys()) == set(entries)
    assert (8 + length) % 8 == 0
    assert max(entry["data_offsets"][1] for entry in entries.values()) == len(data) - 8 - length


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_plan_counts_what_a_shard_holds(dtype: Dtype, world: int, tmp_path: Path) -> None:
    """A head tied to embed among it, which is loaded beside that even by a rank that has all of both."""
    checkpoint = open_checkpoint(write_huggingface(tiny_model(LLAMA_32), tmp_path / "model"))
    assert checkpoint.config.tie_embeddings
    write(checkpoint, tmp_path, world, dtype, plain_type(dtype))
    for rank in range(world):
        held = sum(tensor.nbytes for tensor in load_file(tmp_path / shard_path(rank)).values())
        assert held == weight_bytes(checkpoint.config, world, dtype, POSITIONS)


def test_the_header_has_room_for_the_largest_model() -> None:
    """Llama 3.1 405B, quantised, whose file has the most and the longest entries."""
    layer = ("attn_norm", "qkv", "qkv_scale", "o", "o_scale", "mlp_norm", "gate_up", "gate_up_scale")
    layer += ("down", "down_scale")
    entry = {"dtype": "BF16", "shape": [106496, 16384], "data_offsets": [10**12, 10**12]}
    names = [f"layers.{index}.{name}" for index in range(126) for name in layer]
    header = json.dumps(dict.fromkeys(names, entry), separators=(",", ":"))
    assert len(header) + 1000 < 1 << 18
