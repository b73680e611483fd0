"""How long one step of the CPU backend takes: decode at several row counts, and a prefill chunk.

    python benchmarks/engine/cpu_step.py [--rows 1 8 32] [--context 256] [--prefill 512] [--dtype bfloat16]

In process, without scheduler or HTTP. Each figure is the median of `--repeats` steps; the shapes take turns,
so that a machine whose speed drifts does so for all of them. --profile adds what the native kernels of each
step take.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

from outcrop.backends.base import StepInput
from outcrop.backends.cpu import CpuBackend, always
from outcrop_compile.bucket import StepKind
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.weights import load_weights

DEMO = Path(__file__).parents[2] / ".demo" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def backend(options: argparse.Namespace) -> CpuBackend:
    checkpoint = open_checkpoint(options.model)
    return CpuBackend(
        checkpoint.config,
        load_weights(checkpoint, dtype=options.dtype, plain="bfloat16"),
        kv_memory=1 << 30,
        max_model_len=2048,
        max_rows=64,
        block_size=32,
        depth=2,
        threads=options.threads,
        native=options.kernels == "native",
    )


def step_of(engine: CpuBackend, kind: StepKind, rows: int, width: int, context: int) -> StepInput:
    """A step in which every row computes `width` tokens after `context` others, each row in blocks of its
    own."""
    caps = engine.capabilities
    size, total = caps.block_size, context + width
    needed = -(-total // size)
    bucket = min(
        (
            b
            for b in engine.buckets
            if b.kind is kind and b.rows >= rows and b.width >= width and b.blocks >= needed
        ),
        key=lambda b: (b.rows * b.width, b.blocks),
    )
    assert (bucket.rows, bucket.width) == (rows, width), f"no bucket of exactly {rows} x {width}"
    tables = (np.arange(rows)[:, None] * needed + np.arange(needed)).astype(np.int32)
    padded = np.full((rows, bucket.blocks), caps.num_blocks, dtype=np.int32)
    padded[:, :needed] = tables
    positions = np.tile(np.arange(context, total, dtype=np.int32), (rows, 1))
    slots = np.take_along_axis(tables, positions // size, axis=1) * size + positions % size
    return StepInput(
        step_id=0,
        bucket=bucket,
        token_ids=np.random.default_rng(0).integers(0, caps.vocab_size, (rows, width), dtype=np.int32),
        use_last=np.zeros((rows, width), dtype=np.int32),
        positions=positions,
        slot_mapping=slots.astype(np.int32),
        block_tables=padded,
        context_lens=np.full(rows, total, dtype=np.int32),
        logits_idx=np.full(rows, width - 1, dtype=np.int32),
        sampled=np.ones(rows, dtype=np.int32),
        slots=np.arange(rows, dtype=np.int32),
        sampling=np.zeros((rows, 4), dtype=np.float32),
        draws=np.zeros(rows, dtype=np.float32),
    )


def profile(engine: CpuBackend, step: StepInput, repeats: int) -> str:
    """Milliseconds and share of each kernel, the largest first."""
    assert engine.recorded is not None
    seconds = engine.recorded.profile(*always(step), repeats=repeats)
    total = sum(seconds.values())
    largest_first = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {1e3 * each:.2f} ({each / total:.0%})" for name, each in largest_first)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--context", type=int, default=256, help="tokens that a decoding row has already")
    parser.add_argument("--prefill", type=int, nargs="+", default=[512], help="tokens of a prompt's chunk")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--kernels", choices=("native", "torch"), default="native")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="of the native kernels")
    options = parser.parse_args()
    engine = backend(options)
    steps = [step_of(engine, StepKind.DECODE, rows, 1, options.context) for rows in options.rows]
    steps += [step_of(engine, StepKind.PREFILL, 1, width, 0) for width in options.prefill]
    times: list[list[float]] = [[] for _ in steps]
    for repeat in range(options.repeats + 2):
        for step, measured in zip(steps, times, strict=True):
            output = engine.collect(engine.submit(step))
            if repeat >= 2:  # the first records, the second finds its memory
                measured.append(output.device_us / 1000)
    print(f"{options.dtype}, {engine.kernels} kernels, {options.context} tokens of context")
    print("\n| step | tokens | ms, median | min | max | tokens/s |\n|---|---|---|---|---|---|")
    for step, measured in zip(steps, times, strict=True):
        bucket, middle = step.bucket, statistics.median(measured)
        tokens = bucket.rows * bucket.width
        print(
            f"| {bucket.kind} {bucket.rows} x {bucket.width} | {tokens} | {middle:.2f} | {min(measured):.2f} "
            f"| {max(measured):.2f} | {1000 * tokens / middle:.0f} |"
        )
    if options.profile:
        for step in steps:
            bucket = step.bucket
            print(f"\n{bucket.kind} {bucket.rows} x {bucket.width}: {profile(engine, step, options.repeats)}")
    engine.close()


if __name__ == "__main__":
    main()
