"""Artifacts for the stand-in of the Neuron runtime: true manifests, and graphs that are only names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from outcrop_compile.artifact.files import StoredFile, stored
from outcrop_compile.artifact.manifest import (
    FORMAT,
    NAME,
    CompiledBucket,
    Manifest,
    Model,
    Sdk,
    Shapes,
    Target,
    artifact_key,
    bucket_key,
    encode,
)
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.config import LlamaConfig
from outcrop_compile.graph import graphs_of
from outcrop_compile.shards import shard_path, write_shard
from outcrop_compile.weights import FloatType
from outcrop_kernels.reference import TOPK_CAP

SHAPES = Shapes(
    dtype="float32", quantisation=None, block_size=16, num_blocks=64, max_model_len=256, max_rows=4,
    guesses=3, topk_cap=TOPK_CAP,
)  # fmt: skip


def device_buckets(shapes: Shapes) -> tuple[Bucket, ...]:
    """A table as coarse as a chip's: few row counts, widths and lengths."""
    most = -(-shapes.max_model_len // shapes.block_size)
    lengths = sorted({min(4, most), most})
    rows = sorted({*(count for count in (1, 8) if count < shapes.max_rows), shapes.max_rows})
    wide = [(1, 32), (1, 128), (min(2, shapes.max_rows), 16)]
    shape = [(StepKind.DECODE, count, 1) for count in rows] + [(StepKind.PREFILL, *each) for each in wide]
    if shapes.guesses:
        shape += [(StepKind.VERIFY, count, shapes.guesses + 1) for count in rows]
    return tuple(Bucket(kind, count, width, length) for kind, count, width in shape for length in lengths)


def manifest_of(
    config: LlamaConfig,
    shapes: Shapes,
    buckets: Sequence[Bucket],
    *,
    tp: int = 1,
    weights: Sequence[StoredFile] = (),
    checkpoint: Sequence[StoredFile] = (),
    kernels: Mapping[str, str] | None = None,
) -> Manifest:
    """A manifest that is right in itself. Files that are not given are none's."""
    none = StoredFile("none", 0, hashlib.sha256().hexdigest())
    target, sdk = Target(instance="inf2.8xlarge", arch="trn1", tp=tp), Sdk(release="2.31.1", packages={})
    compiled = []
    for graph in graphs_of(buckets):
        key = bucket_key(
            hlo=none.sha256,
            flags=(),
            packages={},
            target=target,
            bucket=graph.bucket,
            shapes=shapes,
            kernels=kernels or {},
        )
        compiled.append(
            CompiledBucket(
                tag=graph.tag, bucket=graph.bucket, key=key, flags=(), inputs=graph.inputs(config.vocab_size),
                outputs=graph.outputs(), aliases=(), unread=(), hlo=none, neff=none, metaneff=none,
            )
        )  # fmt: skip
    fields = {
        "format": FORMAT, "outcrop": "0", "model": Model(name="tiny", sha256="0" * 64, config=config),
        "target": target, "sdk": sdk, "shapes": shapes, "kernels": dict(kernels or {}), "states": (),
        "buckets": tuple(compiled), "weights": tuple(weights),
        "checkpoint": tuple(checkpoint),
    }  # fmt: skip
    return Manifest(key=artifact_key(Manifest(key="", **fields)), **fields)


def write_artifact(
    folder: Path,
    model: Path,
    *,
    shapes: Shapes = SHAPES,
    tp: int = 1,
    kernels: Mapping[str, str] | None = None,
) -> Manifest:
    """An artifact of a checkpoint for `tp` ranks. kernels: of `kernel_digests`."""
    checkpoint = open_checkpoint(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "none").touch()
    plain: FloatType = "bfloat16" if shapes.dtype == "bfloat16" else "float32"
    names = [shard_path(rank) for rank in range(tp)]
    for rank, name in enumerate(names):
        write_shard(
            checkpoint, folder / name, rank=rank, world=tp, dtype=shapes.quantisation or plain, plain=plain,
            max_positions=shapes.max_model_len, layout=shapes.weight_layout,
        )  # fmt: skip
    files = sorted(path.relative_to(folder).as_posix() for path in (folder / "checkpoint").glob("*"))
    manifest = manifest_of(
        checkpoint.config,
        shapes,
        device_buckets(shapes),
        tp=tp,
        weights=[stored(folder, name) for name in names],
        checkpoint=[stored(folder, name) for name in files],
        kernels=kernels,
    )
    (folder / NAME).write_bytes(encode(manifest))
    return manifest
