"""The checkpoint that is built: its identity, and the small files that serving needs beside the weights."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from outcrop_compile.artifact.files import sha256_of
from outcrop_compile.artifact.manifest import CHECKPOINT
from outcrop_compile.checkpoint import Checkpoint
from outcrop_compile.checkpoint.huggingface import CONFIG
from outcrop_compile.checkpoint.meta import PARAMS, SHARDS

_SMALL = (
    CONFIG, PARAMS, "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
"""What `outcrop.text` reads of a checkpoint's folder. A GGUF file holds its own, and has to be at hand when
the artifact is served."""


def checkpoint_digest(checkpoint: Checkpoint, progress: Callable[[float], None]) -> str:
    """sha256 of the names and the bytes of the files that hold weights and sizes. Reads all of them."""
    files = _weight_files(checkpoint)
    total, done = max(1, sum(file.stat().st_size for file in files)), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done / total)

    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_of(file, advance)}\n".encode())
    return digest.hexdigest()


def copy_small_files(checkpoint: Checkpoint, folder: Path) -> tuple[str, ...]:
    """Put them into an artifact's folder, and return their paths in it."""
    if not checkpoint.path.is_dir():
        return ()
    names = [name for name in _SMALL if (checkpoint.path / name).is_file()]
    (folder / CHECKPOINT).mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(checkpoint.path / name, folder / CHECKPOINT / name)
    return tuple(f"{CHECKPOINT}/{name}" for name in names)


def _weight_files(checkpoint: Checkpoint) -> list[Path]:
    path = checkpoint.path
    if path.is_file():
        return [path]
    patterns = {
        "huggingface": (CONFIG, "*.safetensors"),
        "meta": (PARAMS, SHARDS),
        "gguf": ("*.gguf",),
    }[checkpoint.format]
    return sorted(file for pattern in patterns for file in path.glob(pattern))
