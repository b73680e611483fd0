"""The graphs that are compiled of one model: a bucket's static shapes, and which inputs its steps have. No
torch."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from outcrop_compile.bucket import Bucket, StepKind


class Variant(enum.StrEnum):
    """What a graph does with its logits, which decides its inputs.

    GREEDY takes the largest, so that ranks need not tell each other more than one. SAMPLED draws, with a
    temperature of 0 for rows that do not. EDITED can also be told which tokens are allowed, and what to add
    to logits and divide them by: large inputs, that only steps with a grammar or a penalty bear.
    """

    GREEDY = "greedy"
    SAMPLED = "sampled"
    EDITED = "edited"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that goes into a graph, comes out of it or stays on the device. dtype: torch's name of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph to compile."""

    bucket: Bucket
    variant: Variant

    @property
    def tag(self) -> str:
        """Its name wherever one is needed: of files, in logs, for the runtime."""
        bucket = self.bucket
        return f"{bucket.kind}-{self.variant}-{bucket.rows}x{bucket.width}-{bucket.blocks}"

    def inputs(self, vocab_size: int) -> tuple[TensorSpec, ...]:
        """What a step is given, in the order of `PagedLlama.forward`; shapes as in
        `outcrop.backends.base.StepInput`."""
        rows, lanes = (self.bucket.rows,), (self.bucket.rows, self.bucket.width)
        found = [
            TensorSpec("token_ids", lanes, "int32"),
            TensorSpec("use_last", lanes, "int32"),
            TensorSpec("positions", lanes, "int32"),
            TensorSpec("slot_mapping", lanes, "int32"),
            TensorSpec("block_tables", (self.bucket.rows, self.bucket.blocks), "int32"),
            TensorSpec("logits_idx", rows, "int32"),
            TensorSpec("sampled", rows, "int32"),
            TensorSpec("slots", rows, "int32"),
        ]
        if self.variant is not Variant.GREEDY:
            draws = lanes if self.bucket.kind is StepKind.VERIFY else rows
            found += [TensorSpec("sampling", (*rows, 4), "float32"), TensorSpec("draws", draws, "float32")]
        if self.variant is Variant.EDITED:
            found += [
                TensorSpec("allowed", (*rows, -(-vocab_size // 32)), "int32"),
                TensorSpec("bias", (*rows, vocab_size), "float32"),
                TensorSpec("repetition", (*rows, vocab_size), "float32"),
            ]
        return tuple(found)

    def outputs(self) -> tuple[TensorSpec, ...]:
        """What a step gives back, in order; the states that it replaces are not among it."""
        rows = (self.bucket.rows,)
        lanes = (self.bucket.rows, self.bucket.width) if self.bucket.kind is StepKind.VERIFY else rows
        return TensorSpec("tokens", lanes, "int32"), TensorSpec("finite", rows, "int32")


def graphs_of(buckets: Iterable[Bucket]) -> Iterator[Graph]:
    """The graphs that serve every step of these buckets. A verify step samples after every token, greedy rows
    too, and edits no logits."""
    for bucket in buckets:
        if bucket.kind is StepKind.VERIFY:
            yield Graph(bucket, Variant.SAMPLED)
        else:
            yield from (Graph(bucket, variant) for variant in Variant)
