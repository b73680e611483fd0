"""Fusing and sharding: what each rank gets is a cut of the canonical tensors, without a second copy."""

import itertools
import json
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import LLAMA_31, LLAMA_32, canonical, tiny_model, write_gguf, write_huggingface, write_meta

from outcrop_compile.checkpoint import CheckpointError, open_checkpoint
from outcrop_compile.checkpoint.groups import Groups
from outcrop_compile.checkpoint.huggingface import read_config
from outcrop_compile.quantise import Form, form_of
from outcrop_compile.weights import ShardingError, load_weights, parameter_shapes
from outcrop_kernels import reference
from outcrop_kernels.quantised import Quantised

GQA = LLAMA_32 | {
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def model():
    return tiny_model(GQA)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    return open_checkpoint(write_huggingface(model, tmp_path_factory.mktemp("gqa")))


def expected(tensors: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """The parameters of an undivided model."""
    fused = {"embed": tensors["embed"]}
    for prefix in (f"layers.{i}." for i in range(layers)):
        fused[prefix + "attn_norm"] = tensors[prefix + "attn_norm"]
        fused[prefix + "qkv"] = np.concatenate([tensors[prefix + part] for part in "qkv"])
        fused[prefix + "o"] = tensors[prefix + "o"]
        fused[prefix + "mlp_norm"] = tensors[prefix + "mlp_norm"]
        fused[prefix + "gate_up"] = np.concatenate([tensors[prefix + part] for part in ("gate", "up")])
        fused[prefix + "down"] = tensors[prefix + "down"]
    fused["norm"] = tensors["norm"]
    if "lm_head" in tensors:
        fused["lm_head"] = tensors["lm_head"]
    return fused


@pytest.mark.parametrize("shape", [LLAMA_31, LLAMA_32, GQA])
@pytest.mark.parametrize("threads", [1, 3])
def test_one_rank_has_everything(tmp_path, shape, threads):
    model = tiny_model(shape)
    checkpoint = open_checkpoint(write_huggingface(model, tmp_path))
    found, wanted = load_weights(checkpoint, threads=threads), expected(canonical(model), 2)
    assert list(found) == list(wanted)
    assert {name: array.shape for name, array in found.items()} == parameter_shapes(checkpoint.config)
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("world", [2, 4, 8])
def test_ranks_put_together_are_the_whole(model, checkpoint, world):
    """With 2 key-value heads, 4 and 8 ranks share them."""
    ranks = [load_weights(checkpoint, rank=rank, world=world) for rank in range(world)]
    shapes = parameter_shapes(checkpoint.config, world)
    for rank in ranks:
        assert {name: array.shape for name, array in rank.items()} == shapes
    tensors = canonical(model)
    np.testing.assert_array_equal(np.concatenate([rank["embed"] for rank in ranks], axis=1), tensors["embed"])
    for name in ("norm", "layers.0.attn_norm", "layers.1.mlp_norm"):
        for rank in ranks:
            np.testing.assert_array_equal(rank[name], tensors[name])
    np.testing.assert_array_equal(np.concatenate([rank["lm_head"] for rank in ranks]), tensors["lm_head"])
    for layer in ("layers.0.", "layers.1."):
        for part in ("o", "down"):
            together = np.concatenate([rank[layer + part] for rank in ranks], axis=1)
            np.testing.assert_array_equal(together, tensors[layer + part])
        halves = [np.split(rank[layer + "gate_up"], 2) for rank in ranks]
        np.testing.assert_array_equal(np.concatenate([gate for gate, _ in halves]), tensors[layer + "gate"])
        np.testing.assert_array_equal(np.concatenate([up for _, up in halves]), tensors[layer + "up"])
        queries = 8 * 32 // world
        q = np.concatenate([rank[layer + "qkv"][:queries] for rank in ranks])
        np.testing.assert_array_equal(q, tensors[layer + "q"])


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_a_rank_has_the_key_value_heads_of_its_queries(model, checkpoint, world):
    """Query head h attends with key-value head h // 4, wherever both are."""
    tensors = canonical(model)
    for rank in range(world):
        qkv = load_weights(checkpoint, rank=rank, world=world)["layers.1.qkv"].reshape(-1, 32, 256)
        local, kv = 8 // world, max(1, 2 // world)
        assert len(qkv) == local + 2 * kv
        for head in range(local):
            theirs = (rank * local + head) // 4
            mine = head // (local // kv)
            for part, start in (("k", local), ("v", local + kv)):
                whole = tensors[f"layers.1.{part}"].reshape(-1, 32, 256)
                np.testing.assert_array_equal(qkv[start + mine], whole[theirs])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_does_not_divide_evenly_is_padded_with_zeros(tmp_path, dtype):
    """Six query heads and 2 key-value heads on 4 ranks, 2 heads each: every other rank has one of padding.
    And 193 rows of the MLP each, of 770, and 50 columns of embed, of 198."""
    shape = {"num_attention_heads": 6, "hidden_size": 198, "head_dim": 32, "intermediate_size": 770}
    judge = tiny_model(GQA | shape)
    checkpoint = open_checkpoint(write_huggingface(judge, tmp_path))
    tensors = canonical(judge)
    for rank in range(4):
        found = load_weights(checkpoint, dtype=dtype, rank=rank, world=4)
        plain = {
            name: weight.codes * weight.scale if isinstance(weight, Quantised) else weight
            for name, weight in found.items()
        }
        assert {name: array.shape for name, array in plain.items()} == parameter_shapes(checkpoint.config, 4)
        columns = np.arange(rank * 50, min(rank * 50 + 50, 198))
        heads = rank // 2 * 3 + np.arange(rank % 2 * 2, min(rank % 2 * 2 + 2, 3))
        rows = np.arange(rank * 193, min(rank * 193 + 193, 770))
        query, o = plain["layers.1.qkv"].reshape(4, 32, 198), plain["layers.1.o"].reshape(198, 2, 32)
        gate_up, down = plain["layers.1.gate_up"].reshape(2, 193, 198), plain["layers.1.down"]
        pairs = [
            (plain["embed"][:, : len(columns)], tensors["embed"][:, columns]),
            (query[: len(heads)], tensors["layers.1.q"].reshape(6, 32, 198)[heads]),
            (o[:, : len(heads)], tensors["layers.1.o"].reshape(198, 6, 32)[:, heads]),
            (query[2], tensors["layers.1.k"].reshape(2, 32, 198)[rank // 2]),
            (query[3], tensors["layers.1.v"].reshape(2, 32, 198)[rank // 2]),
            (gate_up[0, : len(rows)], tensors["layers.1.gate"][rows]),
            (gate_up[1, : len(rows)], tensors["layers.1.up"][rows]),
            (down[:, : len(rows)], tensors["layers.1.down"][:, rows]),
        ]
        for got, wanted in pairs:
            np.testing.assert_allclose(
                got, wanted, atol=0 if dtype == "float32" else np.abs(wanted).max() / 250
            )
        for padding in (
            plain["embed"][:, len(columns) :],
            query[len(heads) : 2],
            o[:, len(heads) :],
            gate_up[:, len(rows) :],
            down[:, len(rows) :],
        ):
            assert not padding.any()


@pytest.mark.parametrize("source", ["gguf", "meta"])
@pytest.mark.parametrize("world", [1, 2])
def test_interleaved_formats_are_sharded_alike(tmp_path, source, world):
    """Ranks' heads are put in order after the cut, by pieces of files that are cut elsewhere."""
    model = tiny_model(GQA)
    path = (
        write_gguf(model, tmp_path / "m.gguf") if source == "gguf" else write_meta(model, tmp_path, shards=2)
    )
    found = open_checkpoint(path)
    wanted = open_checkpoint(write_huggingface(model, tmp_path / "hf"))
    for rank in range(world):
        left, right = (load_weights(each, rank=rank, world=world) for each in (found, wanted))
        for name, array in right.items():
            np.testing.assert_array_equal(left[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_bfloat16_is_rounded_to_nearest(tmp_path, kind):
    checkpoint = open_checkpoint(write_gguf(tiny_model(LLAMA_31), tmp_path / "model.gguf", kind=kind))
    full, half = load_weights(checkpoint), load_weights(checkpoint, dtype="bfloat16")
    for name, array in full.items():
        assert half[name].dtype == np.uint16
        rounded = torch.from_numpy(array).to(torch.bfloat16).view(torch.uint16).numpy()
        np.testing.assert_array_equal(half[name], rounded, err_msg=name)


def test_bfloat16_is_kept_bit_for_bit(tmp_path):
    """Not even a signalling NaN changes on the way from bfloat16 to bfloat16."""
    write_huggingface(tiny_model(LLAMA_31), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bits = tensors["model.embed_tokens.weight"].view(torch.int16)
    bits[5, 7] = 0x7F81
    save_file(tensors, tmp_path / "model.safetensors")
    found = load_weights(open_checkpoint(tmp_path), dtype="bfloat16")["embed"]
    np.testing.assert_array_equal(found, bits.view(torch.uint16).numpy())


@pytest.mark.parametrize(
    ("world", "words"),
    [(3, "num_kv_heads 2 cannot be divided among 3"), (0, "among 0 ranks")],
)
def test_worlds_that_do_not_fit(checkpoint, world, words):
    with pytest.raises(ShardingError, match=words):
        load_weights(checkpoint, world=world)


@pytest.mark.parametrize(
    ("changes", "world", "words"),
    [
        ({"num_attention_heads": 12, "num_key_value_heads": 3}, 2, "num_kv_heads 3"),
        ({"num_attention_heads": 12, "num_key_value_heads": 3}, 4, "num_kv_heads 3"),
        ({"vocab_size": 322}, 4, "vocab_size 322"),
    ],
)
def test_sizes_that_do_not_divide(tmp_path, changes, world, words):
    (tmp_path / "config.json").write_text(
        json.dumps(GQA | {"model_type": "llama", "hidden_act": "silu"} | changes)
    )
    with pytest.raises(ShardingError, match=words):
        parameter_shapes(read_config(tmp_path / "config.json"), world)


@pytest.mark.parametrize("rank", [-1, 2])
def test_rank_out_of_range(checkpoint, rank):
    with pytest.raises(ShardingError, match=f"rank {rank} is not one of 2"):
        load_weights(checkpoint, rank=rank, world=2)


def test_progress_counts_every_byte_once(checkpoint):
    calls = []
    found = load_weights(checkpoint, progress=lambda done, total: calls.append((done, total)))
    total = sum(array.nbytes for array in found.values())
    assert calls[-1] == (total, total)
    assert all(earlier < later for (earlier, _), (later, _) in itertools.pairwise(calls))


def test_whoever_watches_may_stop_it(checkpoint):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_weights(checkpoint, progress=stop)


@pytest.mark.parametrize("source", ["huggingface", "gguf", "meta"])
def test_memory_never_holds_the_model_twice(tmp_path, source):
    """60 MB of parameters, of which the largest tensor is a sixth."""
    model = tiny_model(LLAMA_32, hidden_size=512, intermediate_size=1536, head_dim=128, vocab_size=5120,
                       num_hidden_layers=4)  # fmt: skip
    write = {
        "huggingface": lambda: write_huggingface(model, tmp_path),
        "gguf": lambda: write_gguf(model, tmp_path / "model.gguf", kind="Q8_0"),
        "meta": lambda: write_meta(model, tmp_path),
    }
    checkpoint = open_checkpoint(write[source]())
    tracemalloc.start()
    try:
        found = load_weights(checkpoint, threads=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    total = sum(array.nbytes for array in found.values())
    assert total > 50e6
    assert total <= peak < total + 12e6  # a few cache-sized blocks a thread


# -- quantised -------------------------------------------------------------------------------------


def quantised(weight: Quantised[np.ndarray]) -> Quantised[torch.Tensor]:
    minimum = None if weight.minimum is None else torch.from_numpy(weight.minimum)
    return Quantised(torch.from_numpy(weight.codes), torch.from_numpy(weight.scale), minimum, weight.bits)


@pytest.mark.parametrize("shape", [LLAMA_31, LLAMA_32])
@pytest.mark.parametrize("world", [1, 2])
def test_int8_is_the_references_quantisation_of_every_matrix_but_embed(tmp_path, shape, world):
    checkpoint = open_checkpoint(
        write_huggingface(tiny_model(shape, num_key_value_heads=2, num_attention_heads=4), tmp_path)
    )
    for rank in range(world):
        full = load_weights(checkpoint, rank=rank, world=world)
        found = load_weights(checkpoint, dtype="int8", rank=rank, world=world)
        full.setdefault("lm_head", full["embed"])
        assert found.keys() == full.keys()
        for name, array in full.items():
            if array.ndim == 1 or name == "embed":
                np.testing.assert_array_equal(found[name], array)
                continue
            got, wanted = quantised(found[name]), reference.quantise_channels(torch.from_numpy(array))
            assert (got.bits, got.minimum) == (8, None)
            assert torch.equal(got.scale, wanted.scale), name
            assert torch.equal(got.codes, wanted.codes), name


@pytest.mark.parametrize(
    ("kind", "dtype", "bits"), [("Q4_0", "int4", 4), ("Q4_1", "int4", 4), ("Q8_0", "int8", 8)]
)
def test_a_files_own_groups_are_kept_to_the_bit(tmp_path, kind, dtype, bits):
    checkpoint = open_checkpoint(write_gguf(tiny_model(LLAMA_31), tmp_path / "model.gguf", kind=kind))
    full, found = load_weights(checkpoint), load_weights(checkpoint, dtype=dtype)
    for name, array in full.items():
        if array.ndim == 1 or name == "embed":
            continue
        got = quantised(found[name])
        assert (got.bits, got.scale.shape[1], got.minimum is None) == (
            bits,
            array.shape[1] // 32,
            kind != "Q4_1",
        )
        assert -8 <= int(got.codes.min()) < int(got.codes.max()) <= 15 or bits == 8
        np.testing.assert_array_equal(reference.dequantised(got).numpy(), array, err_msg=name)


def test_a_stack_of_both_kinds_of_4_bits_has_minima(tmp_path):
    left = Groups(lambda rows: rows, 4)
    right = Groups(lambda rows: rows, 4, ranges=True)
    wide = Groups(lambda rows: rows, 8)
    assert form_of([left, left], "int4") == Form(4, groups=True)
    assert form_of([left, right], "int4") == Form(4, groups=True, ranges=True)
    assert form_of([left, wide], "int4") == form_of([left, left], "int8") == Form(8, groups=False)
    assert form_of([wide, wide], "int4") == form_of([wide, wide], "int8") == Form(8, groups=True)
    checkpoint = open_checkpoint(write_gguf(tiny_model(LLAMA_31), tmp_path / "model.gguf", kind="Q4_0"))
    codes, scale, minimum = (
        np.empty((256, width), kind) for width, kind in ((256, np.int8), (8, np.float32), (8, np.float32))
    )
    checkpoint.read_groups_into("layers.0.q", codes, scale, minimum)
    got = reference.dequantised(quantised(Quantised(codes, scale, minimum, 4)))
    np.testing.assert_array_equal(got.numpy(), checkpoint.read("layers.0.q"))
    assert codes.min() >= 0


def test_int4_of_a_checkpoint_without_4_bits_says_what_to_choose(tmp_path):
    checkpoint = open_checkpoint(write_huggingface(tiny_model(LLAMA_31), tmp_path))
    with pytest.raises(CheckpointError, match=r"has none; choose dtype int8"):
        load_weights(checkpoint, dtype="int4")
