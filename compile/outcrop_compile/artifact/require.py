"""Whether an artifact was made for the place that is to serve it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outcrop_compile.artifact.errors import ArtifactMismatch, DamagedArtifact
from outcrop_compile.artifact.manifest import Manifest
from outcrop_compile.artifact.open import Artifact
from outcrop_compile.sdk import INDEX

LAYOUT = "weight_layout"
"""In the metadata of a shard: the `WeightLayout` of its matrices."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a place that serves has. None: not known, so not compared.

    arch: the compiler's target for its chip. cores: NeuronCores that are free. packages: versions of the
    SDK's Python packages (`outcrop_compile.sdk.installed_packages`). kernels: digests of those of the
    artifact's kernels that it has (`outcrop_compile.artifact.kernels.kernel_digests`). model: sha256 of the
    checkpoint that is asked for. max_model_len, max_rows: what the server was told to offer.
    """

    arch: str | None = None
    cores: int | None = None
    packages: Mapping[str, str] | None = None
    kernels: Mapping[str, str] | None = None
    model: str | None = None
    max_model_len: int | None = None
    max_rows: int | None = None


def require(manifest: Manifest, place: Place) -> None:
    """Refuse an artifact that was made for something else. Raises ArtifactMismatch, whose message names the
    field that differs and the command that mends it."""
    target, shapes = manifest.target, manifest.shapes
    build = manifest.build_command
    if place.arch is not None and place.arch != target.arch:
        raise ArtifactMismatch("target.arch", target.arch, place.arch, build(instance="THIS_INSTANCE"))
    if place.cores is not None and place.cores < target.tp:
        raise ArtifactMismatch("target.tp", target.tp, f"at most {place.cores}", build(tp=place.cores))
    if place.model is not None and place.model != manifest.model.sha256:
        raise ArtifactMismatch(
            "model.sha256", manifest.model.sha256[:12], place.model[:12], build(model="THIS_MODEL")
        )
    for name, wanted in sorted((place.packages or {}).items()):
        found = manifest.sdk.packages.get(name)
        if found is not None and found != wanted:
            mend = f"pip install --extra-index-url {INDEX} {name}=={found} (or {build()})"
            raise ArtifactMismatch(f"sdk.packages.{name}", found, wanted, mend)
    if place.kernels is not None and dict(place.kernels) != manifest.kernels:
        names = sorted(set(place.kernels) | set(manifest.kernels))
        name = next(name for name in names if place.kernels.get(name) != manifest.kernels.get(name))
        found, here = (_short(digests.get(name)) for digests in (manifest.kernels, place.kernels))
        raise ArtifactMismatch(f"kernels.{name}", found, here, build())
    for name, limit, offered in (
        ("max_model_len", place.max_model_len, shapes.max_model_len),
        ("max_rows", place.max_rows, shapes.max_rows),
    ):
        if limit is not None and limit > offered:
            option = "batch" if name == "max_rows" else name
            raise ArtifactMismatch(f"shapes.{name}", offered, f"at least {limit}", build(**{option: limit}))


def require_layout(artifact: Artifact) -> None:
    """Refuse weights that do not lie as the graphs read them, which a square matrix does not show. Raises
    ArtifactMismatch, which names the file, and DamagedArtifact."""
    # Settings import this package, and so does every command.
    from safetensors import SafetensorError, safe_open

    manifest = artifact.manifest
    for file in manifest.weights:
        try:
            with safe_open(artifact.file(file), "numpy") as shard:
                found = (shard.metadata() or {}).get(LAYOUT, "outputs-first")
        except SafetensorError as error:
            raise DamagedArtifact(
                file.path, f"not a safetensors file ({error})", manifest.build_command()
            ) from None
        if found != manifest.shapes.weight_layout:
            raise ArtifactMismatch(
                f"{file.path}: {LAYOUT}", found, manifest.shapes.weight_layout, manifest.build_command()
            )


def _short(digest: str | None) -> str:
    return "absent" if digest is None else digest[:12]
