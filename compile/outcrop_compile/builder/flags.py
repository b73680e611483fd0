"""What neuronx-cc is told for each kind of step."""

from __future__ import annotations

from collections.abc import Sequence

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.builder.compiler import ARCH

_ALL = (
    f"--target {ARCH}",
    "--model-type=transformer",
    # Weights are bfloat16, and what is float32 is so for a reason.
    "--auto-cast=none",
    # Infinities become the largest number: they turn to NaN on NeuronCore-v2.
    "--enable-saturate-infinity",
    "--verbose=35",
)


def flags_of(bucket: Bucket, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Every flag for a bucket's graphs; extra come last, and win. With all of these given, NxD adds none but
    the log's name (`append_default_compiler_flags` of neuronx_distributed/trace/functions.py).

    Decode steps run most and are small, so they get the compiler's best; a wide prefill step of -O2 is what
    unrolls into too many instructions (aws-neuron-sdk issue 749)."""
    level = "-O1" if bucket.kind is StepKind.PREFILL else "-O2"
    return (*_ALL, level, *extra)
