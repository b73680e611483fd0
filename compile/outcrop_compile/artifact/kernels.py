"""Which kernel sources a graph depends on: a graph names its NKI kernels and does not hold their source.

A manifest has a kernel under its name in `outcrop_kernels.nki.catalogue`, with ".gather" behind it where its
DMA gathers by indices in SBUF.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

import outcrop_kernels
from outcrop_compile.artifact.files import sha256_of

GATHER = ".gather"
_PACKAGE = "outcrop_kernels.nki"


def kernel_names(kernels: Collection[str], *, gather: bool) -> tuple[str, ...]:
    """The kernels of a build as its manifest names them."""
    return tuple(sorted(name + GATHER if gather else name for name in kernels))


def built_with(names: Collection[str]) -> tuple[tuple[str, ...], bool]:
    """`kernel_names` the other way round: the kernels, and whether they gather."""
    return tuple(sorted(name.removesuffix(GATHER) for name in names)), any(
        name.endswith(GATHER) for name in names
    )


def kernel_digests(names: Iterable[str]) -> dict[str, str]:
    """sha256 of all that this Outcrop's kernels of these names are made of; those that it has not are left
    out."""
    folder = Path(outcrop_kernels.__file__).parent / "nki"
    files = {name: folder / f"{name.removesuffix(GATHER)}.py" for name in names}
    return {name: source_digest(path) for name, path in files.items() if path.is_file()}


def source_digest(file: Path) -> str:
    """sha256 of a kernel's file and of those beside it that it imports, directly or not."""
    waiting, found = [file], set[Path]()
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [path for path in map(file.parent.joinpath, _imports(one)) if path.is_file()]
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _imports(file: Path) -> Iterable[str]:
    """Names of the files of the kernels' package that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            package, _, module = node.module.rpartition(".")
            if package == _PACKAGE:
                yield f"{module}.py"
