"""Small artifacts on disk, whose files are a few bytes each: for tests of what is done with artifacts."""

from pathlib import Path

import msgspec

from outcrop_compile.artifact import CompiledBucket, Manifest, StoredFile, TensorSpec
from outcrop_compile.artifact.files import stored
from outcrop_compile.artifact.manifest import (
    FORMAT,
    NAME,
    Model,
    Sdk,
    Shapes,
    Target,
    artifact_key,
    bucket_key,
    encode,
)
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.config import LlamaConfig
from outcrop_compile.sdk import RELEASES

CONFIG = LlamaConfig(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=192,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    context=2048,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=None,
    tie_embeddings=False,
)
TARGET = Target(instance="inf2.8xlarge", arch="trn1", tp=2)
SDK = Sdk(release="2.31.1", packages=dict(RELEASES["2.31.1"].python))
SHAPES = Shapes(
    dtype="bfloat16", quantisation=None, block_size=32, num_blocks=64, max_model_len=1024, max_rows=4,
    guesses=0, topk_cap=256,
)  # fmt: skip
KERNELS = {"paged_decode_attention.gather": "ab" * 32}
FLAGS = ("--target=trn1", "--auto-cast=none", "-O1")


def write_artifact(folder: Path, *, salt: str = "", weight_bytes: int = 3000) -> Manifest:
    """Write an artifact of two buckets and two ranks. salt: changes its graphs, and so its key."""
    buckets = tuple(
        _bucket(folder, bucket, salt)
        for bucket in (Bucket(StepKind.DECODE, 4, 1, 32), Bucket(StepKind.PREFILL, 1, 128, 32))
    )
    weights = tuple(
        _file(folder, f"weights/tp{rank}_sharded_checkpoint.safetensors", bytes([rank]) * weight_bytes)
        for rank in range(TARGET.tp)
    )
    manifest = Manifest(
        format=FORMAT, key="", outcrop="0.1.0", model=Model(name="tiny", sha256="cd" * 32, config=CONFIG),
        target=TARGET, sdk=SDK, shapes=SHAPES, kernels=KERNELS,
        states=(TensorSpec(name="last_token", shape=(5,), dtype="int32"),),
        buckets=buckets, weights=weights,
        checkpoint=(_file(folder, "checkpoint/tokenizer.json", b"{}"),),
    )  # fmt: skip
    return rewrite(folder, manifest)


def rewrite(folder: Path, manifest: Manifest) -> Manifest:
    """Write a manifest under its true key."""
    manifest = msgspec.structs.replace(manifest, key=artifact_key(manifest))
    (folder / NAME).write_bytes(encode(manifest))
    return manifest


def _bucket(folder: Path, bucket: Bucket, salt: str) -> CompiledBucket:
    tag = f"{bucket.kind}-{bucket.rows}x{bucket.width}-{bucket.blocks}"
    hlo = _file(folder, f"buckets/{tag}.hlo", f"graph of {tag} {salt}".encode())
    key = bucket_key(
        hlo=hlo.sha256, flags=FLAGS, packages=SDK.packages, target=TARGET, bucket=bucket, shapes=SHAPES,
        kernels=KERNELS,
    )  # fmt: skip
    return CompiledBucket(
        tag=tag, bucket=bucket, key=key, flags=FLAGS,
        inputs=(TensorSpec(name="token_ids", shape=(bucket.rows, bucket.width), dtype="int32"),),
        outputs=(TensorSpec(name="tokens", shape=(bucket.rows,), dtype="int32"),),
        aliases=("last_token",), unread=(), hlo=hlo,
        neff=_file(folder, f"buckets/{tag}.neff", f"code of {tag}".encode()),
        metaneff=_file(folder, f"buckets/{tag}.metaneff", b"\x08\x01"),
    )  # fmt: skip


def _file(folder: Path, path: str, data: bytes) -> StoredFile:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return stored(folder, path)
