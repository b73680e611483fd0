"""The graphs of an artifact: which one runs a step, and with what inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from outcrop.backends.base import StepInput
from outcrop_compile.artifact import ArtifactMismatch, CompiledBucket, Manifest
from outcrop_compile.bucket import Bucket, StepKind

Array = npt.NDArray[Any]

_SAMPLING = frozenset({"sampling", "draws"})
_EDITS = ("allowed", "bias", "repetition")
_NEUTRAL = {"allowed": -1, "bias": 0.0, "repetition": 1.0}
"""What an edit is for rows that want none."""

_FLOATS = frozenset({"sampling", "draws", "bias", "repetition"})


class Graphs:
    """The compiled buckets by what they can do.

    A bucket may have several graphs, which differ in their inputs: one without `sampling` and `draws` takes
    the largest logit, one with some of `allowed`, `bias` and `repetition` edits the logits. A step runs in
    the smallest graph that has an input for everything it wants; inputs that it has no use for get values
    that change nothing.
    """

    def __init__(self, manifest: Manifest) -> None:
        """Raises ArtifactMismatch where the graphs are not those of this Outcrop's model or not complete."""
        self._by_bucket: dict[Bucket, list[CompiledBucket]] = {}
        for index, graph in enumerate(manifest.buckets):
            _check(manifest, index, graph)
            self._by_bucket.setdefault(graph.bucket, []).append(graph)
        for bucket, graphs in self._by_bucket.items():
            graphs.sort(key=lambda graph: len(graph.inputs))
            edits = () if bucket.kind is StepKind.VERIFY else _EDITS
            for wanted in (_SAMPLING, _SAMPLING | set(edits)):
                if _smallest(graphs, wanted) is None:
                    raise ArtifactMismatch(
                        "buckets",
                        f"without a graph for {_name(bucket)} that takes {', '.join(sorted(wanted))}",
                        "complete",
                        manifest.build_command(),
                    )
        for kind in (StepKind.PREFILL, StepKind.DECODE):
            if not any(bucket.kind is kind for bucket in self._by_bucket):
                raise ArtifactMismatch(
                    "buckets", f"without any for {kind}", "complete", manifest.build_command()
                )
        self._neutral: dict[tuple[str, str], Array] = {}

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        return tuple(self._by_bucket)

    def __iter__(self) -> Iterator[CompiledBucket]:
        for graphs in self._by_bucket.values():
            yield from graphs

    def choose(self, step: StepInput) -> CompiledBucket:
        """The graph that runs a step."""
        wanted = {name for name in _EDITS if getattr(step, name) is not None}
        if (step.sampling[:, 0] > 0).any():
            wanted |= _SAMPLING
        graph = _smallest(self._by_bucket[step.bucket], wanted)
        assert graph is not None  # `__init__` has seen to that
        return graph

    def inputs(self, graph: CompiledBucket, step: StepInput) -> dict[str, Array]:
        """A step as the graph's inputs, in the order of its signature."""
        found: dict[str, Array] = {}
        for spec in graph.inputs:
            array = getattr(step, spec.name)
            found[spec.name] = self._nothing(graph.tag, spec.name, spec.shape) if array is None else array
        return found

    def _nothing(self, tag: str, name: str, shape: tuple[int, ...]) -> Array:
        """An edit that changes nothing, made once for each graph."""
        array = self._neutral.get((tag, name))
        if array is None:
            array = self._neutral[tag, name] = np.full(shape, _NEUTRAL[name], dtype=_dtype(name))
        return array


def _smallest(graphs: Sequence[CompiledBucket], wanted: set[str] | frozenset[str]) -> CompiledBucket | None:
    """The first, so smallest, that has these inputs."""
    return next((graph for graph in graphs if wanted <= {spec.name for spec in graph.inputs}), None)


def _check(manifest: Manifest, index: int, graph: CompiledBucket) -> None:
    """Whether a graph takes what a step of its bucket has."""
    shapes = step_shapes(graph.bucket, manifest.model.config.vocab_size)
    for spec in graph.inputs:
        where = f"buckets[{index}].inputs.{spec.name}"
        expected = shapes.get(spec.name)
        if expected is None:
            raise ArtifactMismatch(
                where,
                "an input",
                "absent: a step has no such input",
                manifest.build_command(),
            )
        if spec.shape != expected:
            raise ArtifactMismatch(f"{where}.shape", spec.shape, expected, manifest.build_command())
        dtype = _dtype(spec.name).__name__
        if spec.dtype != dtype:
            raise ArtifactMismatch(f"{where}.dtype", spec.dtype, dtype, manifest.build_command())


def step_shapes(bucket: Bucket, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """The shape of every input that a step of this bucket may have, by its name in StepInput."""
    rows, lanes = (bucket.rows,), (bucket.rows, bucket.width)
    return {
        "token_ids": lanes,
        "use_last": lanes,
        "positions": lanes,
        "slot_mapping": lanes,
        "block_tables": (bucket.rows, bucket.blocks),
        "logits_idx": rows,
        "sampled": rows,
        "slots": rows,
        "sampling": (bucket.rows, 4),
        "draws": lanes if bucket.kind is StepKind.VERIFY else rows,
        "allowed": (bucket.rows, -(-vocab_size // 32)),
        "bias": (bucket.rows, vocab_size),
        "repetition": (bucket.rows, vocab_size),
    }


def _dtype(name: str) -> type[np.int32] | type[np.float32]:
    return np.float32 if name in _FLOATS else np.int32


def _name(bucket: Bucket) -> str:
    return f"{bucket.kind} of {bucket.rows} x {bucket.width} tokens and {bucket.blocks} blocks"
