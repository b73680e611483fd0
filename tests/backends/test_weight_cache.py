"""Packed weights on disk: the same numbers after a restart, and never those of another checkpoint or of a
damaged file."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import LLAMA_32, tiny_model, write_gguf

from outcrop.backends.weight_cache import WeightCache
from outcrop.engine.config import EngineConfig
from outcrop.engine.process import build_backend
from outcrop_kernels.cpu.native import weight_memory
from outcrop_kernels.cpu.native.library import available
from outcrop_kernels.cpu.native.weight_memory import DamagedFile, WeightMemory

pytestmark = pytest.mark.skipif(not available(), reason="packing is for native kernels")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tiny_model(LLAMA_32), tmp_path / "model.gguf", kind="Q4_0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def started(model: Path, folder: Path, **changes: object) -> tuple[dict[str, np.ndarray], str]:
    """The weights that an engine serves, and how it describes itself."""
    config = EngineConfig(str(model), weight_cache=str(folder), max_model_len=64, max_rows=1, **changes)
    backend, description = build_backend(config, lambda event: None)
    buffers = {name: buffer.view(-1).view(torch.uint8).numpy().copy()
               for name, buffer in backend.model.named_buffers() if "pool" not in name}  # fmt: skip
    backend.close()
    return buffers, description


def some_memory() -> WeightMemory:
    memory = WeightMemory.of_sizes([100, 64])
    memory.add("a", "int8", (100,), np.arange(100, dtype=np.uint8))
    memory.add("b", "float32", (4, 4), np.arange(64, dtype=np.uint8))
    return memory


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_second_start_has_the_same_weights(model: Path, folder: Path, dtype: str) -> None:
    first, packed = started(model, folder, dtype=dtype)
    assert "(packed, now cached)" in packed
    second, read = started(model, folder, dtype=dtype)
    assert "(packed before)" in read
    assert first.keys() == second.keys()
    for name, buffer in first.items():
        assert np.array_equal(second[name], buffer), name


def test_another_type_or_another_checkpoint_is_packed_anew(model: Path, folder: Path) -> None:
    started(model, folder, dtype="int8")
    assert "now cached" in started(model, folder, dtype="int4")[1]
    write_gguf(tiny_model(LLAMA_32, seed=1), model, kind="Q4_0")
    assert "now cached" in started(model, folder, dtype="int4")[1]
    assert len(list(folder.iterdir())) == 3


def test_a_checkpoint_that_was_only_touched_is_taken_for_another(model: Path, folder: Path) -> None:
    cache = WeightCache(folder, 1 << 30)
    before = cache.path(model, "int8")
    assert cache.path(model, "int8") == before
    os.utime(model, ns=(0, 12345))
    assert cache.path(model, "int8") != before


def test_off_writes_nothing(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    backend, description = build_backend(EngineConfig(str(model), weight_cache="off"), lambda event: None)
    backend.close()
    assert "packed" not in description
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["cut", "grown", "flipped", "head", "empty", "zeroed"])
def test_a_damaged_file_is_noticed_and_made_again(model: Path, folder: Path, damage: str) -> None:
    whole, _ = started(model, folder, dtype="int8")
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-100:]
    elif damage == "grown":
        data += bytes(64)
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "head":
        data[60] ^= 0x40
    elif damage == "empty":
        data.clear()
    else:
        data[8192:16384] = bytes(8192)
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=path.name):
        WeightMemory.load(path)
    again, description = started(model, folder, dtype="int8")
    assert "now cached" in description
    assert all(np.array_equal(again[name], buffer) for name, buffer in whole.items())
    assert "packed before" in started(model, folder, dtype="int8")[1]


def test_the_longest_unused_makes_room(folder: Path) -> None:
    size = 4096 + 192
    cache = WeightCache(folder, 2 * size)
    paths = [folder / f"{name}.weights" for name in "abc"]
    for moment, path in enumerate(paths[:2], int(time.time()) - 100):
        assert cache.store(path, some_memory()) == "now cached"
        os.utime(path, (moment, moment))
    assert cache.load(paths[0]) is not None
    assert cache.store(paths[2], some_memory()) == "now cached"
    assert [path.exists() for path in paths] == [True, False, True]


def test_what_is_not_used_for_a_month_goes_with_what_is_beside_it(folder: Path) -> None:
    cache, day = WeightCache(folder, 1 << 30), 24 * 3600
    ages = {"old.weights": 31, "old.calibration": 31, "used.weights": 29, ".dead.unfinished": 1, "mine": 99}
    folder.mkdir()
    for name, days in ages.items():
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - days * day,) * 2)
    (folder / ".written.unfinished").write_bytes(b"x")
    assert cache.store(folder / "new.weights", some_memory()) == "now cached"
    left = {".written.unfinished", "mine", "new.weights", "used.weights"}
    assert {path.name for path in folder.iterdir()} == left


def test_weights_that_go_while_they_are_read_are_read_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, path = WeightCache(folder, 4096 + 192), folder / "a.weights"
    cache.store(path, some_memory())
    read_into = weight_memory._fill

    def fill(file: Any, memory: np.ndarray) -> None:
        assert cache.store(folder / "b.weights", some_memory()) == "now cached"
        assert not path.exists()
        read_into(file, memory)

    monkeypatch.setattr(weight_memory, "_fill", fill)
    found = cache.load(path)
    assert found is not None
    assert np.array_equal(found.memory[: found.used], some_memory().memory)
    assert cache.load(path) is None


def test_what_cannot_be_kept_is_served_all_the_same(model: Path, tmp_path: Path) -> None:
    assert "not cached (0 MiB, the limit is 0)" in WeightCache(tmp_path, 10).store(
        tmp_path / "x.weights", some_memory()
    )
    blocked = tmp_path / "file"
    blocked.write_text("")
    buffers, description = started(model, blocked / "folder", dtype="int8")
    assert "not cached (" in description
    assert buffers


def test_a_failed_write_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    assert WeightCache(folder, 1 << 30).store(folder / "x.weights", some_memory()) == "not cached (disk full)"
    assert list(folder.iterdir()) == []
