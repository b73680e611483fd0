"""The graphs of an artifact: which one runs a step, and with what inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from outcrop.backends.base import StepInput
from outcrop_compile.artifact import ArtifactMismatch, CompiledBucket, Manifest
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.graph import Graph, TensorSpec, Variant, graphs_of

Array = npt.NDArray[Any]

_NEUTRAL = {"allowed": -1, "bias": 0.0, "repetition": 1.0}
"""What an edit is for rows that want none."""


class Graphs:
    """The compiled buckets, each a graph for every variant of its steps (`outcrop_compile.graph.graphs_of`).

    A step runs in the graph that does no more than it wants: the large inputs of an edited one would cost
    time to copy, and the greedy one spares the ranks an exchange. Edits that a step has no use for, beside
    one that it has, get values that change nothing.
    """

    def __init__(self, manifest: Manifest) -> None:
        """Raises ArtifactMismatch where the graphs are not those of this Outcrop's model, or not complete."""
        compiled = {each.tag: each for each in manifest.buckets}
        self.buckets = tuple(dict.fromkeys(each.bucket for each in manifest.buckets))
        for kind in (StepKind.PREFILL, StepKind.DECODE):
            if not any(bucket.kind is kind for bucket in self.buckets):
                raise ArtifactMismatch("buckets", f"without {kind}", "complete", manifest.build_command())
        self._compiled: dict[tuple[Bucket, Variant], CompiledBucket] = {}
        self._neutral: dict[str, Array] = {}
        for graph in graphs_of(self.buckets):
            found = compiled.get(graph.tag)
            if found is None:
                raise ArtifactMismatch(
                    "buckets", f"without {graph.tag}", "complete", manifest.build_command()
                )
            _check(manifest, graph, found)
            self._compiled[graph.bucket, graph.variant] = found

    def __iter__(self) -> Iterator[CompiledBucket]:
        return iter(self._compiled.values())

    def choose(self, step: StepInput) -> CompiledBucket:
        """The graph that runs a step."""
        if step.allowed is not None or step.bias is not None or step.repetition is not None:
            variant = Variant.EDITED
        elif step.bucket.kind is StepKind.VERIFY or (step.sampling[:, 0] > 0).any():
            variant = Variant.SAMPLED
        else:
            variant = Variant.GREEDY
        return self._compiled[step.bucket, variant]

    def inputs(self, graph: CompiledBucket, step: StepInput) -> dict[str, Array]:
        """A step as the graph's inputs, in the order of its signature."""
        found: dict[str, Array] = {}
        for spec in graph.inputs:
            array = getattr(step, spec.name)
            found[spec.name] = self._nothing(graph.tag, spec) if array is None else array
        return found

    def _nothing(self, tag: str, spec: TensorSpec) -> Array:
        """An edit that changes nothing, made once for each graph."""
        key = f"{tag} {spec.name}"
        array = self._neutral.get(key)
        if array is None:
            array = np.full(spec.shape, _NEUTRAL[spec.name], dtype=spec.dtype)
            self._neutral[key] = array
        return array


def _check(manifest: Manifest, graph: Graph, found: CompiledBucket) -> None:
    """Whether a graph takes what its steps have, and gives what they want."""
    for what, specs, wanted in (
        ("inputs", found.inputs, graph.inputs(manifest.model.config.vocab_size)),
        ("outputs", found.outputs, graph.outputs()),
    ):
        if specs == wanted:
            continue
        names, expected = [each.name for each in specs], [each.name for each in wanted]
        where = f"buckets.{graph.tag}.{what}"
        if names != expected:
            raise ArtifactMismatch(where, ", ".join(names), ", ".join(expected), manifest.build_command())
        for spec, each in zip(specs, wanted, strict=True):
            if spec != each:
                raise ArtifactMismatch(
                    f"{where}.{spec.name}",
                    f"{spec.dtype} {list(spec.shape)}",
                    f"{each.dtype} {list(each.shape)}",
                    manifest.build_command(),
                )
