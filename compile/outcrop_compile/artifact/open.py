"""Opening an artifact: nothing of it is used before it is known to be whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outcrop_compile.artifact.errors import ArtifactError, ArtifactMismatch, DamagedArtifact
from outcrop_compile.artifact.files import StoredFile, sha256_of
from outcrop_compile.artifact.manifest import (
    FORMAT,
    NAME,
    CompiledBucket,
    Manifest,
    artifact_key,
    bucket_key,
    decode,
    format_of,
)

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of it that is done."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder that holds what its manifest says."""

    path: Path
    manifest: Manifest

    def file(self, file: StoredFile) -> Path:
        return self.path / file.path

    def weights(self) -> tuple[Path, ...]:
        """The ranks' files, in order."""
        return tuple(self.file(file) for file in self.manifest.weights)


def open_artifact(path: Path, *, hashes: bool = False, progress: Progress | None = None) -> Artifact:
    """Open the folder of an artifact and check it: the manifest against itself, and every file's presence
    and size; with `hashes` also every file's sha256, which reads all of it.

    Raises DamagedArtifact, which names the file, and ArtifactMismatch, which names the field; both say
    which command mends it.
    """
    manifest = read_manifest(path / NAME)
    done, total = 0, max(1, manifest.size())
    checked: set[str] = set()
    for file in manifest.files():
        if file.path in checked:
            continue
        checked.add(file.path)
        _check(path, file, manifest, hashes)
        done += file.size
        if progress:
            progress("verify", done / total)
    return Artifact(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """A manifest file, checked against itself. Raises as `open_artifact` does."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror}. An artifact is a folder that holds {NAME}; make one with: "
            "outcrop compile build, or get one with: outcrop compile pull KEY --store STORE"
        ) from None
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest's bytes, checked against themselves. where: what to call it in errors."""
    found = format_of(data)
    if isinstance(found, int) and found != FORMAT:
        mend = (
            "outcrop compile build (the artifact is older than this Outcrop)"
            if found < FORMAT
            else "pip install --upgrade outcrop (the artifact is newer than this Outcrop)"
        )
        raise ArtifactMismatch("format", found, FORMAT, mend)
    try:
        manifest = decode(data)
    except msgspec.DecodeError as error:  # which a ValidationError is
        raise DamagedArtifact(where, f"not a manifest ({error})", _AGAIN) from None
    for index, bucket in enumerate(manifest.buckets):
        if bucket.key != _key_of(manifest, bucket):
            raise DamagedArtifact(
                where, f"buckets[{index}].key is not that of what {bucket.tag} says it was made from", _AGAIN
            )
    if manifest.key != artifact_key(manifest):
        raise DamagedArtifact(where, "key is not that of what the manifest says it was made from", _AGAIN)
    if len(manifest.weights) != manifest.target.tp:
        raise DamagedArtifact(
            where, f"weights has {len(manifest.weights)} files for target.tp {manifest.target.tp}", _AGAIN
        )
    return manifest


_AGAIN = "outcrop compile pull KEY --store STORE (or outcrop compile build, which makes it again)"


def _key_of(manifest: Manifest, bucket: CompiledBucket) -> str:
    return bucket_key(
        hlo=bucket.hlo.sha256,
        flags=bucket.flags,
        packages=manifest.sdk.packages,
        target=manifest.target,
        bucket=bucket.bucket,
        shapes=manifest.shapes,
        kernels=manifest.kernels,
    )


def _check(folder: Path, file: StoredFile, manifest: Manifest, hashes: bool) -> None:
    pull = f"outcrop compile pull {manifest.key[:12]} --store STORE --out {folder}"
    mend = f"{pull} (or {manifest.build_command()})"
    path = folder / file.path
    try:
        size = path.stat().st_size
        if size != file.size:
            raise DamagedArtifact(file.path, f"has {size} bytes, the manifest says {file.size}", mend)
        if hashes and (found := sha256_of(path)) != file.sha256:
            raise DamagedArtifact(
                file.path, f"has sha256 {found[:12]}…, the manifest says {file.sha256[:12]}…", mend
            )
    except OSError as error:
        raise DamagedArtifact(file.path, error.strerror or str(error), mend) from None
