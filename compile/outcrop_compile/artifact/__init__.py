"""The product of compilation: a folder of graphs and weights with a manifest that says what they are."""

from outcrop_compile.artifact.errors import ArtifactError, ArtifactMismatch, DamagedArtifact
from outcrop_compile.artifact.files import StoredFile
from outcrop_compile.artifact.manifest import CompiledBucket, Manifest
from outcrop_compile.artifact.open import Artifact, open_artifact
from outcrop_compile.artifact.require import Place, require, require_layout
from outcrop_compile.graph import TensorSpec

__all__ = [
    "Artifact",
    "ArtifactError",
    "ArtifactMismatch",
    "CompiledBucket",
    "DamagedArtifact",
    "Manifest",
    "Place",
    "StoredFile",
    "TensorSpec",
    "open_artifact",
    "require",
    "require_layout",
]
