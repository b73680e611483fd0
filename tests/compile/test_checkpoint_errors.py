"""Whatever is wrong with the files, opening says what and where; nothing is read and nothing crashes."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_models import LLAMA_31, LLAMA_32, tiny_model, write_gguf, write_huggingface, write_meta

from outcrop_compile.checkpoint import CheckpointError, open_checkpoint


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One checkpoint of each kind, to be copied and damaged."""
    folder, model = tmp_path_factory.mktemp("originals"), tiny_model(LLAMA_32)
    write_huggingface(model, folder / "whole", dtype="float32")
    write_huggingface(model, folder / "sharded", dtype="float32", sharded=True)
    write_meta(model, folder / "meta", shards=2)
    (folder / "gguf").mkdir()
    write_gguf(model, folder / "gguf" / "model.gguf", kind="Q8_0")
    return folder


@pytest.fixture
def copy(originals, tmp_path):
    return lambda name: Path(shutil.copytree(originals / name, tmp_path / name))


def refused(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    for word in words:
        assert word in str(error.value)


# Which format


def test_nothing_there(tmp_path):
    refused(tmp_path / "absent", "absent", "no such file")


def test_empty_directory(tmp_path):
    refused(tmp_path, "config.json", "params.json", "*.gguf", "Found: nothing")


def test_directory_of_other_files(tmp_path):
    for name in ("config.json", "pytorch_model.bin", *(f"notes{i}.txt" for i in range(20))):
        (tmp_path / name).touch()
    refused(tmp_path, "model.safetensors", "Found: config.json, notes0.txt", "12 more")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    refused(tmp_path / "model.bin", "neither a .gguf file")


def test_two_gguf_files(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    refused(tmp_path, "2 .gguf files", "a.gguf, b.gguf")


def test_unreadable_file(copy):
    folder = copy("whole")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refused(folder, "model.safetensors", "directory")


# Hugging Face


def edit(folder: Path, change) -> None:
    """Rewrite model.safetensors with its tensors changed."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_tensor(copy):
    folder = copy("whole")
    edit(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "'model.layers.1.mlp.up_proj.weight' is missing", "[768, 256]")


def test_misshapen_tensor(copy):
    folder, name = copy("whole"), "model.layers.0.self_attn.k_proj.weight"
    edit(folder, lambda tensors: tensors.update({name: np.zeros((128, 255), np.float32)}))
    refused(folder, name, "[128, 255]", "[128, 256]")


def test_config_that_implies_more_layers(copy):
    folder = copy("whole")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2_000_000_000}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "'model.layers.2.input_layernorm.weight' is missing")


def test_unexpected_tensor(copy):
    folder, name = copy("whole"), "model.layers.0.self_attn.q_proj.bias"
    edit(folder, lambda tensors: tensors.update({name: np.zeros(256, np.float32)}))
    refused(folder, "unexpected", name)


def test_tensor_of_integers(copy):
    folder, name = copy("whole"), "model.layers.0.self_attn.q_proj.weight"
    edit(folder, lambda tensors: tensors.update({name: np.zeros((256, 256), np.int8)}))
    refused(folder, name, "I8", "BF16")


def test_rotary_table_of_old_conversions_is_ignored(copy):
    folder, name = copy("whole"), "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit(folder, lambda tensors: tensors.update({name: np.zeros(32, np.float32)}))
    open_checkpoint(folder)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_truncated_safetensors(copy, kept):
    file = copy("whole") / "model.safetensors"
    os.truncate(file, int(file.stat().st_size * kept))
    refused(file.parent, "model.safetensors", "truncated", "tensor 'model.", f"{file.stat().st_size} bytes")


def safetensors(header: bytes | dict, data: bytes = b"", length: int | None = None) -> bytes:
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x02",
        safetensors(b"{}", length=1 << 62),
        safetensors(b"{}", length=200),
        safetensors(b"not json"),
        safetensors(b"\xff\xfe"),
        safetensors(b"[" * 50_000),
        safetensors({"a": ENTRY, "b": ENTRY}, bytes(8)),  # overlapping
        safetensors({"a": ENTRY | {"data_offsets": [8, 0]}}, bytes(8)),
        safetensors({"a": ENTRY | {"data_offsets": [0, 1 << 62]}}, bytes(8)),
        safetensors({"a": ENTRY | {"shape": [3]}}, bytes(8)),
        safetensors({"a": ENTRY | {"dtype": "Q9"}}, bytes(8)),
        safetensors({"a": {}}, bytes(8)),
        safetensors({"a": ENTRY}, bytes(80)),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    ],
)
def test_corrupt_safetensors_header(copy, content):
    folder = copy("whole")
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors")


def test_missing_shard(copy):
    folder = copy("sharded")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    refused(folder, shard.name, "is missing", "index.json")


def test_shard_without_its_tensor(copy):
    folder = copy("sharded")
    shards = sorted(folder.glob("*.safetensors"))
    shutil.copy(shards[0], shards[1])
    refused(folder, shards[1].name, "no tensor 'model.")


@pytest.mark.parametrize("file", ["../whole/model.safetensors", "/etc/passwd", "..", "", 7, None])
def test_index_that_points_elsewhere(copy, file):
    copy("whole")
    folder = copy("sharded")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = file
    index.write_text(json.dumps(content))
    refused(folder, "index.json", "'model.norm.weight'", repr(file))


@pytest.mark.parametrize("content", ["{}", '{"weight_map": ["a"]}', "[]", "{"])
def test_corrupt_index(copy, content):
    folder = copy("sharded")
    (folder / "model.safetensors.index.json").write_text(content)
    refused(folder, "index.json")


def test_index_that_leaves_a_tensor_out(copy):
    folder = copy("sharded")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["model.layers.0.mlp.gate_proj.weight"]
    index.write_text(json.dumps(content))
    refused(folder, "'model.layers.0.mlp.gate_proj.weight' is missing")


# Meta


def edit_shard(folder: Path, rank: int, change) -> None:
    file = folder / f"consolidated.{rank:02d}.pth"
    tensors = torch.load(file, weights_only=True)
    change(tensors)
    torch.save(tensors, file)


def test_meta_missing_first_shard(copy):
    folder = copy("meta")
    (folder / "consolidated.00.pth").unlink()
    refused(folder, "'consolidated.00.pth' is missing")


def test_meta_missing_last_shard(copy):
    folder = copy("meta")
    (folder / "consolidated.01.pth").unlink()
    refused(folder, "'tok_embeddings.weight'", "[160, 256]", "[320, 256]")


def test_meta_missing_tensor_in_one_shard(copy):
    folder = copy("meta")
    edit_shard(folder, 1, lambda tensors: tensors.pop("layers.1.attention.wo.weight"))
    refused(folder, "'layers.1.attention.wo.weight'")


def test_meta_shards_that_disagree(copy):
    folder, name = copy("meta"), "layers.0.feed_forward.w2.weight"
    edit_shard(folder, 1, lambda tensors: tensors.update({name: torch.zeros(256, 100)}))
    refused(folder, name, "[256, 100] in consolidated.01.pth", "[256, 384] in consolidated.00.pth")


def test_meta_tensor_of_integers(copy):
    folder, name = copy("meta"), "norm.weight"
    edit_shard(folder, 0, lambda tensors: tensors.update({name: torch.zeros(256, dtype=torch.int8)}))
    refused(folder, name, "int8", "bfloat16")


@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_meta_truncated(copy, kept):
    file = copy("meta") / "consolidated.01.pth"
    os.truncate(file, int(file.stat().st_size * kept))
    refused(file.parent, "consolidated.01.pth", "truncated")


class Harm:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_meta_never_runs_a_pickle(copy, tmp_path):
    folder = copy("meta")
    torch.save({"norm.weight": Harm(str(tmp_path / "harmed"))}, folder / "consolidated.00.pth")
    refused(folder, "consolidated.00.pth", "not a file of tensors")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}])
def test_meta_file_of_other_things(copy, content):
    folder = copy("meta")
    torch.save(content, folder / "consolidated.00.pth")
    refused(folder, "consolidated.00.pth", "dictionary of tensors")


# GGUF


@pytest.mark.parametrize("kept", [0, 2, 10, 200, 0.5, 0.999])
def test_gguf_truncated(copy, kept):
    file = copy("gguf") / "model.gguf"
    os.truncate(file, int(file.stat().st_size * kept) if isinstance(kept, float) else kept)
    refused(file, "model.gguf", "tensor '" if isinstance(kept, float) else "")


def test_gguf_that_is_something_else(copy):
    file = copy("gguf") / "model.gguf"
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    refused(file, "not a GGUF file")


def test_gguf_unsupported_quantisation(tmp_path):
    refused(
        write_gguf(tiny_model(LLAMA_31), tmp_path / "model.gguf", kind="Q5_1"),
        "'token_embd.weight'", "Q5_1", "Q8_0, Q4_0, Q4_1, Q4_K, Q6_K",
    )  # fmt: skip


def test_gguf_survives_any_damaged_byte_of_its_header(copy):
    """Every answer is a checkpoint or a CheckpointError."""
    file = copy("gguf") / "model.gguf"
    content, random = file.read_bytes(), np.random.default_rng(0)
    damaged = bytearray(content)
    errors = 0
    for at in random.choice(4096, 400, replace=False):
        for value in (0x00, 0xFF, content[at] ^ 0x01):
            damaged[at] = value
            file.write_bytes(damaged)
            try:
                open_checkpoint(file)
            except CheckpointError:
                errors += 1
        damaged[at] = content[at]
    assert errors > 100


# Reading


def test_no_such_tensor(originals):
    with pytest.raises(CheckpointError, match="no tensor 'lm_head'"):
        open_checkpoint(originals / "whole").read("lm_head")
