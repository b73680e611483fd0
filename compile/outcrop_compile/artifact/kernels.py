"""Which kernel sources a graph depends on: a graph names its NKI kernels and does not hold their source."""

from __future__ import annotations

from pathlib import Path

import outcrop_kernels
from outcrop_compile.artifact.files import sha256_of

_FOLDER = "nki"


def kernel_digests() -> dict[str, str]:
    """sha256 of each source file of this Outcrop's NKI kernels, by its path in the package."""
    return source_digests(Path(outcrop_kernels.__file__).parent / _FOLDER)


def source_digests(folder: Path) -> dict[str, str]:
    """sha256 of each Python file below a folder, by its path from there; empty if there is no folder."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*.py"))}
