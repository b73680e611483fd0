"""What an artifact is: everything that its graphs were made from, and the files that came of it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import msgspec

from outcrop_compile.artifact.files import StoredFile
from outcrop_compile.artifact.kernels import built_with
from outcrop_compile.bucket import Bucket
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import TensorSpec
from outcrop_kernels.weight_layout import WeightLayout

FORMAT = 2
"""Of manifests; raised when an older Outcrop could no longer read one."""
NAME = "manifest.json"
CHECKPOINT = "checkpoint"
"""Folder of an artifact that holds the checkpoint's small files."""

Arch = Literal["trn1"]
"""The compiler's target. Inf2 and Trn1 have the same NeuronCore-v2, and both are built for as trn1."""
Dtype = Literal["bfloat16", "float32"]
Quantisation = Literal["int8"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Model(_Part, frozen=True):
    """The checkpoint. name: for people. sha256: of what its weights are, see `checkpoint_digest`."""

    name: str
    sha256: str
    config: LlamaConfig


class Target(_Part, frozen=True):
    """instance: the one that sizes were chosen for. tp: ranks, so NeuronCores of one replica."""

    instance: str
    arch: Arch
    tp: int


class Sdk(_Part, frozen=True):
    """release: of the Neuron SDK, or "unpinned" where the packages are of none that Outcrop knows.
    packages: the versions that made the graphs."""

    release: str
    packages: dict[str, str]


class Shapes(_Part, frozen=True, omit_defaults=True):
    """The sizes that are constants of every graph. dtype: of activations, KV and embeddings. quantisation:
    of matrices; None for dtype. num_blocks: without the sink. max_rows: without the token table's sink.
    guesses: of a row in a verify step; 0 for none. topk_cap: candidates that sampling considers.
    inputs_first: whether matrices lie so, as some kernels want; left out where they do not, so that
    artifacts keep the keys that they had before there was a choice."""

    dtype: Dtype
    quantisation: Quantisation | None
    block_size: int
    num_blocks: int
    max_model_len: int
    max_rows: int
    guesses: int
    topk_cap: int
    inputs_first: bool = False

    @property
    def weight_layout(self) -> WeightLayout:
        return "inputs-first" if self.inputs_first else "outputs-first"

    @property
    def slot_mode(self) -> bool:
        """Whether a block holds a whole sequence: the fallback for compilers that cannot do pages."""
        return self.block_size >= self.max_model_len


class CompiledBucket(_Part, frozen=True):
    """One graph. tag: its name everywhere. flags: every one that the compiler was given. inputs: in the
    order of `PagedLlama.forward`. outputs: in order, without the states. aliases: the states that the graph
    reads and replaces, in place. unread: the inputs that it does not read, which NxD takes from a step and
    does not give to the graph. key: see `bucket_key`. hlo, neff, metaneff: all that the runtime loads, and
    what it was compiled from."""

    tag: str
    bucket: Bucket
    key: str
    flags: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    aliases: tuple[str, ...]
    unread: tuple[str, ...]
    hlo: StoredFile
    neff: StoredFile
    metaneff: StoredFile


class Manifest(_Part, frozen=True):
    """format: of this file. key: see `artifact_key`. outcrop: the version that built it. kernels: of each
    kernel that the graphs call, by its name, see `kernel_digests`. states: what a rank keeps on its device,
    zeros at first (KV pools, token table). weights: one file a rank, in the order of ranks. checkpoint:
    the checkpoint's small files (configuration, tokenizer, chat template), so that serving needs nothing
    else."""

    format: int
    key: str
    outcrop: str
    model: Model
    target: Target
    sdk: Sdk
    shapes: Shapes
    kernels: dict[str, str]
    states: tuple[TensorSpec, ...]
    buckets: tuple[CompiledBucket, ...]
    weights: tuple[StoredFile, ...]
    checkpoint: tuple[StoredFile, ...]

    def files(self) -> Iterator[StoredFile]:
        for bucket in self.buckets:
            yield from (bucket.hlo, bucket.neff, bucket.metaneff)
        yield from self.weights
        yield from self.checkpoint

    def size(self) -> int:
        """Bytes of all files, each counted once."""
        return sum({file.path: file.size for file in self.files()}.values())

    def build_command(self, **changes: object) -> str:
        """The command that builds this artifact; changes: values of options (`max_model_len=4096`)."""
        return shlex.join(build_words(self.model.name, self.target, self.shapes, self.kernels, changes))


def build_words(
    model: str, target: Target, shapes: Shapes, kernels: Collection[str], changes: Mapping[str, object]
) -> list[str]:
    """`outcrop compile build` with the options that decide what is built. model: its path. kernels: as in a
    manifest. changes: values of options, by their names with underscores."""
    options: dict[str, object] = {
        "model": model,
        "instance": target.instance,
        "tp": target.tp,
        "out": None,
        "max_model_len": shapes.max_model_len,
        "batch": shapes.max_rows,
        "dtype": shapes.quantisation or shapes.dtype,
        "speculative_tokens": shapes.guesses,
        "block_size": None if shapes.slot_mode else shapes.block_size,
    }
    words = ["outcrop", "compile", "build"]
    for name, value in (options | dict(changes)).items():
        words += [] if value is None else ["--" + name.replace("_", "-"), str(value)]
    names, gather = built_with(kernels)
    words += ["--slots"] if shapes.slot_mode else []
    words += ["--kernels", ",".join(names)] if names else []
    words += ["--indirect-dma"] if gather else []
    return words


def digest_of(value: object) -> str:
    """sha256 of anything that JSON can say, the same whatever order its mappings are in."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def bucket_key(
    *,
    hlo: str,
    flags: tuple[str, ...],
    packages: Mapping[str, str],
    target: Target,
    bucket: Bucket,
    shapes: Shapes,
    kernels: Mapping[str, str],
) -> str:
    """Of all that a NEFF depends on, so two graphs of the same key need compiling once.

    hlo: sha256 of the graph given to the compiler. The instance is not part of it: graphs are compiled for
    an architecture. The kernels are, since a graph names a kernel and does not hold its source.
    """
    return digest_of(
        {
            "hlo": hlo,
            "flags": flags,
            "packages": dict(packages),
            "arch": target.arch,
            "tp": target.tp,
            "bucket": bucket,
            "shapes": shapes,
            "kernels": dict(kernels),
        }
    )


def artifact_key(manifest: Manifest) -> str:
    """Of everything that the artifact was made from: its graphs' keys, the model and what it is made for.
    It names the artifact in a store. What came out (NEFFs) is not part of it: compilers need not write the
    same bytes twice."""
    return digest_of(
        {
            "format": manifest.format,
            "model": manifest.model.sha256,
            "config": manifest.model.config,
            "target": manifest.target,
            "shapes": manifest.shapes,
            "states": manifest.states,
            "buckets": [[bucket.tag, bucket.key] for bucket in manifest.buckets],
        }
    )


def encode(manifest: Manifest) -> bytes:
    """manifest.json, for people to read too."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes) -> Manifest:
    """Raises msgspec.ValidationError, whose message names the field, and msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Manifest)


def format_of(data: bytes) -> Any:
    """The format that a manifest says it has, whatever else is in it; None if it says none."""
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
    return found.get("format") if isinstance(found, dict) else None
