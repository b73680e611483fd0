"""Weights with their inputs first, as kernels read them: how shards have them, and that a model on them with
kernels is the model without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from neuron_artifact import SHAPES, write_artifact
from safetensors import safe_open
from safetensors.torch import load_file
from sharded import KV, load, run_threads
from tiny_models import LLAMA_32, tiny_model, write_huggingface
from torch import Tensor

from outcrop_compile.artifact import ArtifactMismatch, DamagedArtifact, open_artifact, require_layout
from outcrop_compile.checkpoint import Checkpoint, open_checkpoint
from outcrop_compile.llama import PagedLlama, TensorParallel
from outcrop_compile.shards import shard_path, write_shard
from outcrop_compile.weights import WeightType, is_multiplied
from outcrop_kernels.nki.catalogue import chosen_kernels, weight_layout
from outcrop_kernels.nki.operations import Call, run
from outcrop_kernels.registry import operations
from outcrop_kernels.weight_layout import WeightLayout

PLAIN: dict[str, Any] = {"float32": "float32", "bfloat16": "bfloat16", "int8": "bfloat16"}
NEAR = {"float32": 1e-5, "bfloat16": 2**-5, "int8": 2**-5}
"""Of logits and KV, of their largest magnitude: kernels round to bfloat16 less often than operations do."""
ALL = chosen_kernels("all")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """With a head tied to embed, whose order no layout changes."""
    model = tiny_model(LLAMA_32, intermediate_size=256, vocab_size=512)
    return open_checkpoint(write_huggingface(model, tmp_path_factory.mktemp("llama")))


def write(checkpoint: Checkpoint, folder: Path, world: int, dtype: WeightType, layout: WeightLayout) -> Path:
    for rank in range(world):
        write_shard(
            checkpoint, folder / shard_path(rank), rank=rank, world=world, dtype=dtype, plain=PLAIN[dtype],
            max_positions=64, layout=layout,
        )  # fmt: skip
    return folder


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_shard_has_the_same_numbers_in_the_other_order(
    checkpoint: Checkpoint, tmp_path: Path, dtype: WeightType
) -> None:
    shards = [
        write(checkpoint, tmp_path / layout, 2, dtype, layout) / shard_path(1)
        for layout in ("outputs-first", "inputs-first")
    ]
    before, after = (load_file(path) for path in shards)
    assert before.keys() == after.keys()
    turned = {name for name, one in before.items() if is_multiplied(name, one.shape)} - {"cos", "sin"}
    assert turned >= {"layers.0.qkv", "layers.1.o", "layers.0.gate_up", "layers.1.down", "head"}
    assert not turned & {"embed", "norm", "layers.0.qkv_scale"}
    for name, one in before.items():
        assert torch.equal(after[name], one.T if name in turned else one), name
    for path, layout in zip(shards, ("outputs-first", "inputs-first"), strict=True):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"weight_layout": layout}


def step(model: PagedLlama) -> list[Tensor]:
    """A decode step of two rows with random histories: this rank's logits, and what it wrote of KV."""
    dice = torch.Generator().manual_seed(model.parallel.rank)
    for layer in model.layers:
        for name in ("key_pool", "value_pool"):
            pool = getattr(layer, name)
            setattr(layer, name, torch.randn(pool.shape, generator=dice).to(pool.dtype))
    positions, first = torch.tensor([[40], [17]], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    tables = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]], dtype=torch.int32)
    slots = torch.tensor([[3 * KV.block_size + 8], [6 * KV.block_size + 1]], dtype=torch.int32)
    tokens = torch.tensor([[7], [300]], dtype=torch.int32)
    with torch.inference_mode():
        logits, *_ = model.compute(tokens, first[:, None], positions, slots, tables, first, first)
    pools = [getattr(layer, name) for layer in model.layers for name in ("key_pool", "value_pool")]
    return [logits, *(pool.flatten(0, 1)[slots.flatten()].float() for pool in pools)]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_model_with_kernels_is_the_model_without(
    checkpoint: Checkpoint, tmp_path: Path, dtype: WeightType, world: int
) -> None:
    called: set[str] = set()

    def noted(call: Call) -> Any:
        called.add(call.entry.name)
        return run(call)

    found = []
    for kernels in (frozenset[str](), ALL):
        folder = write(checkpoint, tmp_path / str(len(kernels)), world, dtype, weight_layout(kernels))
        ops, results = operations("neuron", kernels, gather=True, caller=noted), dict[int, list[Tensor]]()

        def rank(
            parallel: TensorParallel, folder: Path = folder, ops: Any = ops, to: Any = results
        ) -> list[int]:
            to[parallel.rank] = step(load(checkpoint.config, folder, parallel, ops=ops))
            return []

        run_threads(world, rank)
        found.append([one for place in range(world) for one in results[place]])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= NEAR[dtype] * other.abs().max()
    fused = {"int8_dequant_matmul"} if dtype == "int8" else {"fused_qkv", "swiglu_mlp"}
    assert called >= {"paged_decode_attention", "add_rmsnorm", "kv_cache_write", *fused}
    assert not called & ({"fused_qkv", "swiglu_mlp", "int8_dequant_matmul"} - fused)


def test_weights_in_another_order_than_the_graphs_read_are_refused_by_name(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """As a shard of another artifact, put in its place: it is of the same size."""
    write_artifact(tmp_path, checkpoint.path, shapes=SHAPES)
    artifact = open_artifact(tmp_path)
    require_layout(artifact)
    shard = tmp_path / shard_path(0)
    shard.unlink()
    write_shard(
        checkpoint, shard, rank=0, world=1, dtype="float32", plain="float32", max_positions=256,
        layout="inputs-first",
    )  # fmt: skip
    with pytest.raises(
        ArtifactMismatch,
        match=r"tp0_sharded_checkpoint.safetensors: weight_layout is inputs-first, .*compile build",
    ):
        require_layout(open_artifact(tmp_path))
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DamagedArtifact, match="not a safetensors file"):
        require_layout(open_artifact(tmp_path))
