"""Where artifacts are kept to be shared: files under the hash of their content, and manifests that name them.

    objects/<sha256>                         the bytes of a file, once for all artifacts that have it
    artifacts/<key>/<sha256>.json            a manifest, under its artifact's key and its own hash

A manifest is written after all its objects, so what a reader finds is whole. Killed at any moment, a push or
a pull leaves no artifact that is half there, and run again goes on with what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

from outcrop_compile.artifact.errors import ArtifactError, DamagedArtifact
from outcrop_compile.artifact.files import Advance, StoredFile, place, sha256_of
from outcrop_compile.artifact.manifest import NAME, Manifest, encode
from outcrop_compile.artifact.open import Artifact, Progress, open_artifact, parse_manifest, read_manifest

_MANIFEST = re.compile(r"artifacts/([0-9a-f]{64})/([0-9a-f]{64})\.json")
_OTHER_BYTES = "its bytes have another sha256 than its name says"
_THREADS = 4
"""Objects moved at a time: one stream fills neither a network nor an S3 endpoint."""


class Storage(Protocol):
    """Named bytes. Names have `/` between parts. What is written is there as a whole or not at all."""

    def names(self, prefix: str) -> Iterator[str]:
        """Those that begin with a prefix, in any order."""

    def size(self, name: str) -> int | None:
        """Bytes; None if there is no such name."""

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` on, in pieces. Raises FileNotFoundError."""

    def write(self, name: str, file: Path, advance: Advance) -> None:
        """Store a file's bytes, over whatever was there."""

    def write_bytes(self, name: str, data: bytes) -> None: ...


class Store:
    """Artifacts in a storage. where: what to call it in messages and in the commands that mend."""

    def __init__(self, storage: Storage, where: str) -> None:
        self.storage = storage
        self.where = where

    def artifacts(self) -> tuple[list[Manifest], list[ArtifactError]]:
        """The artifacts, by model and target, and what is wrong with those that cannot be read."""
        found: dict[str, Manifest] = {}
        wrong: list[ArtifactError] = []
        for name in sorted(self._manifests("")):
            try:
                manifest = self._manifest(name)
                found[manifest.key] = manifest
            except ArtifactError as error:
                wrong.append(error)
        return sorted(found.values(), key=lambda each: (each.model.name, each.target.tp, each.key)), wrong

    def find(self, key: str) -> Manifest:
        """The artifact whose key begins with `key`. Raises ArtifactError if there is none, or several."""
        if not re.fullmatch(r"[0-9a-f]{4,64}", key):
            raise ArtifactError(f"{key!r} is not a key: 4 to 64 hexadecimal digits, as shown by {self._list}")
        names = sorted(self._manifests(key))
        keys = sorted({name.split("/")[1] for name in names})
        if not keys:
            raise ArtifactError(f"{self.where} has no artifact {key}. See what it has with: {self._list}")
        if len(keys) > 1:
            shown = ", ".join(each[:12] for each in keys)
            raise ArtifactError(f"{self.where} has several artifacts {key}: {shown}. Give more digits")
        # Of one key there may be several builds, none better than another.
        return self._manifest(names[0])

    def push(self, folder: Path, *, force: bool = False, progress: Progress | None = None) -> Manifest:
        """Store a folder's artifact, after checking every hash; only what the store lacks is written, with
        `force` everything. Raises as `open_artifact` does."""
        artifact = open_artifact(folder, hashes=True, progress=progress)
        manifest = artifact.manifest
        missing = [
            file
            for file in _distinct(manifest)
            if force or self.storage.size(_object(file.sha256)) != file.size
        ]
        _each(
            missing,
            lambda file, advance: self.storage.write(_object(file.sha256), artifact.file(file), advance),
            "push",
            progress,
        )
        data = encode(manifest)
        name = f"artifacts/{manifest.key}/{hashlib.sha256(data).hexdigest()}.json"
        if force or self.storage.size(name) != len(data):
            self.storage.write_bytes(name, data)
        return manifest

    def pull(self, key: str, folder: Path, *, progress: Progress | None = None) -> Artifact:
        """Bring an artifact into a folder. What is there already and right is kept, so this also goes on
        with a pull that was cut off, and mends a damaged folder.

        Raises ArtifactError where the folder holds another artifact, DamagedArtifact, which names the
        object, where the store's bytes are not what its manifest says.
        """
        manifest = self.find(key)
        with _only_one(folder):
            _refuse(folder, manifest)
            (folder / NAME).unlink(missing_ok=True)  # not to be opened until everything is right again
            _each(
                list({file.path: file for file in manifest.files()}.values()),
                lambda file, advance: self._fetch(file, folder / file.path, advance),
                "pull",
                progress,
            )
            place(folder / NAME, encode(manifest))
        return open_artifact(folder)

    def verify(self, key: str, *, progress: Progress | None = None) -> Manifest:
        """Read every object of an artifact and check its hash. Raises DamagedArtifact, which names it."""
        manifest = self.find(key)

        def check(file: StoredFile, advance: Advance) -> None:
            digest = hashlib.sha256()
            for piece in self._read(file):
                digest.update(piece)
                advance(len(piece))
            if digest.hexdigest() != file.sha256:
                raise self._damaged(file, _OTHER_BYTES)

        _each(_distinct(manifest), check, "verify", progress)
        return manifest

    def _fetch(self, file: StoredFile, path: Path, advance: Advance) -> None:
        if path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256:
            advance(file.size)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        resumed = part.is_file() and 0 < part.stat().st_size <= file.size
        if not resumed:
            part.unlink(missing_ok=True)
        if self._complete(file, part, advance):
            part.replace(path)
            return
        part.unlink()
        if not resumed:
            raise self._damaged(file, _OTHER_BYTES)
        # What lay there may be of an older file of that name. The store is to blame only for what it sent.
        if not self._complete(file, part, lambda done: None):
            part.unlink()
            raise self._damaged(file, _OTHER_BYTES)
        part.replace(path)

    def _complete(self, file: StoredFile, part: Path, advance: Advance) -> bool:
        """Append what is missing of a partial file; whether it is right then."""
        with part.open("ab") as out:
            start = out.tell()
            advance(start)
            if start < file.size:
                for piece in self._read(file, start):
                    out.write(piece)
                    advance(len(piece))
            out.flush()
            os.fsync(out.fileno())
        return part.stat().st_size == file.size and sha256_of(part) == file.sha256

    def _read(self, file: StoredFile, start: int = 0) -> Iterator[bytes]:
        try:
            yield from self.storage.read(_object(file.sha256), start)
        except FileNotFoundError:
            raise self._damaged(file, "is missing") from None

    def _damaged(self, file: StoredFile, what: str) -> DamagedArtifact:
        return DamagedArtifact(f"{self.where}/{_object(file.sha256)} ({file.path})", what, self._force)

    def _manifests(self, key: str) -> Iterator[str]:
        """The names of the manifests of artifacts whose key begins with `key`."""
        return (name for name in self.storage.names(f"artifacts/{key}") if _MANIFEST.fullmatch(name))

    def _manifest(self, name: str) -> Manifest:
        where, data = f"{self.where}/{name}", b"".join(self.storage.read(name))
        match = _MANIFEST.fullmatch(name)
        assert match is not None
        manifest = parse_manifest(data, where)
        if (manifest.key, hashlib.sha256(data).hexdigest()) != match.groups():
            raise DamagedArtifact(where, "is not the manifest that its name says", self._force)
        return manifest

    @property
    def _force(self) -> str:
        return f"outcrop compile push --force ARTIFACT --store {self.where} (from a folder that has it whole)"

    @property
    def _list(self) -> str:
        return f"outcrop compile list --store {self.where}"


def _object(sha256: str) -> str:
    return f"objects/{sha256}"


def _distinct(manifest: Manifest) -> list[StoredFile]:
    """The files, one of each content."""
    return list({file.sha256: file for file in manifest.files()}.values())


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two pulls into one folder would write each other's files, so the second waits for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".pull.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refuse(folder: Path, manifest: Manifest) -> None:
    """What cannot end well is not begun."""
    if (folder / NAME).exists():
        found = read_manifest(folder / NAME)
        if found.key != manifest.key:
            raise ArtifactError(
                f"{folder} holds artifact {found.key[:12]} ({found.model.name}), and {manifest.key[:12]} was "
                "asked for. Choose another folder with: outcrop compile pull --out FOLDER"
            )
    paths = [folder / file.path for file in manifest.files()]
    there = sum(path.stat().st_size for path in paths if path.is_file())
    missing, free = manifest.size() - there, shutil.disk_usage(folder).free
    if missing > free:
        raise ArtifactError(
            f"{folder}: {missing >> 20} MiB of the artifact are missing, and its disk has {free >> 20} MiB "
            "free. Make room, or choose another disk with: outcrop compile pull --out FOLDER"
        )


def _each(
    files: Sequence[StoredFile],
    move: Callable[[StoredFile, Advance], None],
    stage: str,
    progress: Progress | None,
) -> None:
    """Do something to each file, several at a time. The first that fails ends it all: its error is raised
    after those that are being moved have stopped."""
    total, done, lock, failed = max(1, sum(file.size for file in files)), 0, Lock(), Event()

    def advance(count: int) -> None:
        nonlocal done
        if failed.is_set():
            raise _Stopped
        with lock:
            done += count
            if progress:
                progress(stage, min(1.0, done / total))

    def one(file: StoredFile) -> None:
        if failed.is_set():
            return
        try:
            move(file, advance)
        except _Stopped:
            return
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="store") as pool:
        tasks = [pool.submit(one, file) for file in files]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            failed.set()
            raise
    if progress and not files:
        progress(stage, 1.0)


class _Stopped(Exception):
    """Another file's failure ends this one's move."""
