"""Which format a path holds."""

from __future__ import annotations

from pathlib import Path

from outcrop_compile.checkpoint import huggingface, meta
from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.model import Checkpoint


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a Hugging Face directory (config.json and safetensors), a directory in Meta's layout
    (params.json and consolidated.*.pth), a .gguf file or a directory holding exactly one.

    All headers are read and every tensor's presence, type, shape and extent is checked; no weight is.
    Raises CheckpointError, whose message names the file and the field or tensor at fault.
    """
    try:
        return _open(path)
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: {error.strerror or error}") from None


def _open(path: Path) -> Checkpoint:
    if path.is_dir():
        if (path / huggingface.CONFIG).exists() and any(
            (path / name).exists() for name in (huggingface.WEIGHTS, huggingface.INDEX)
        ):
            return huggingface.open_huggingface(path)
        if (path / meta.PARAMS).exists() and any(path.glob(meta.SHARDS)):
            return meta.open_meta(path)
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return _open_gguf(path, files[0])
        if files:
            names = ", ".join(file.name for file in files)
            raise CheckpointError(f"{path}: holds {len(files)} .gguf files ({names}); name one of them")
        raise CheckpointError(f"{path}: {_LOOKED_FOR}. Found: {_listing(path)}")
    if path.suffix == ".gguf":
        return _open_gguf(path, path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    raise CheckpointError(f"{path}: neither a .gguf file nor a directory that holds a checkpoint")


_LOOKED_FOR = (
    f"no checkpoint here. Looked for {huggingface.CONFIG} with {huggingface.WEIGHTS} or {huggingface.INDEX};"
    f" {meta.PARAMS} with {meta.SHARDS}; one *.gguf"
)


def _open_gguf(path: Path, file: Path) -> Checkpoint:
    # The gguf package takes 0.1 s to import, so only those who have such a file pay for it.
    from outcrop_compile.checkpoint.gguf_file import open_gguf

    return open_gguf(path, file)


def _listing(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir())
    shown = ", ".join(names[:10]) or "nothing"
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
