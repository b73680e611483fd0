"""What a compiled graph takes, and what it is called. No torch.

A bucket has several graphs, which differ in how they choose a token: what a step does not want, its graph need
not compute.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from outcrop_compile.bucket import Bucket, StepKind


class Choice(enum.StrEnum):
    """GREEDY takes the largest logit, SAMPLED draws, EDITED draws from edited logits."""

    GREEDY = "greedy"
    SAMPLED = "sampled"
    EDITED = "edited"


@dataclass(frozen=True, slots=True)
class Input:
    """An argument of `PagedLlama.forward`."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["int32", "float32"] = "int32"


def choices(bucket: Bucket) -> tuple[Choice, ...]:
    """The graphs of a bucket. A verify step draws and edits nothing (see `outcrop.backends.base.StepInput`)."""
    if bucket.kind is StepKind.VERIFY:
        return (Choice.SAMPLED,)
    return tuple(Choice)


def graph_inputs(bucket: Bucket, choice: Choice, vocab_size: int) -> tuple[Input, ...]:
    """In the order of `PagedLlama.forward`."""
    rows, lanes = (bucket.rows,), (bucket.rows, bucket.width)
    inputs = [
        Input("token_ids", lanes),
        Input("use_last", lanes),
        Input("positions", lanes),
        Input("slot_mapping", lanes),
        Input("block_tables", (bucket.rows, bucket.blocks)),
        Input("logits_idx", rows),
        Input("sampled", rows),
        Input("slots", rows),
    ]
    if choice is not Choice.GREEDY:
        draws = lanes if bucket.kind is StepKind.VERIFY else rows
        inputs += [Input("sampling", (bucket.rows, 4), "float32"), Input("draws", draws, "float32")]
    if choice is Choice.EDITED:
        inputs += [
            Input("allowed", (bucket.rows, -(-vocab_size // 32))),
            Input("bias", (bucket.rows, vocab_size), "float32"),
            Input("repetition", (bucket.rows, vocab_size), "float32"),
        ]
    return tuple(inputs)


def tag(bucket: Bucket, choice: Choice) -> str:
    """The graph's name in files and logs, such as decode_r8_b64_greedy."""
    width = "" if bucket.kind is StepKind.DECODE else f"_t{bucket.width}"
    return f"{bucket.kind}_r{bucket.rows}{width}_b{bucket.blocks}_{choice}"
