"""Where greedy answers part: native kernels from the reference, and types of weights from each other.

    python benchmarks/accuracy/agreement.py [--prompts 200] [--tokens 32]

Prompts are passages of Python's documentation of its own language. Beside how many answers are the same to
the end stands how close the choice was where they part: the difference of the two tokens' float32 logits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from perplexity import DEMO, passage

from outcrop.backends.cpu import CpuBackend
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.weights import load_weights
from outcrop_kernels.registry import operations

PROMPT = 48


def backend(model: Path, dtype: str, threads: int | None, *, native: bool = True) -> CpuBackend:
    checkpoint = open_checkpoint(model)
    engine = CpuBackend(
        checkpoint.config,
        load_weights(checkpoint, dtype=dtype, plain="bfloat16" if native else "float32"),
        kv_memory=512 << 20,
        max_model_len=256,
        max_rows=32,
        block_size=32,
        depth=2,
        threads=threads,
        native=native,
    )
    if not native:
        for module in (engine.model, *engine.model.layers):
            module.operations = operations("reference")
    return engine


def answers(engine: CpuBackend, prompts: list[list[int]], count: int) -> list[list[int]]:
    core = EngineCore(engine, Interleave(), prefix_cache=False)
    found: list[list[int]] = [[] for _ in prompts]
    for index, prompt in enumerate(prompts):
        core.add(GenerationRequest(str(index), prompt, SamplingParams(count)))
    while not core.idle:
        for delta in core.step():
            found[int(delta.request_id)] += delta.tokens
    return found


def partings(
    exact: CpuBackend, prompts: list[list[int]], ours: list[list[int]], theirs: list[list[int]]
) -> list[tuple[int, float]]:
    """For each prompt whose answers differ, after how many tokens they part and with what margin."""
    found = []
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        pairs = enumerate(zip(one, other, strict=True))
        at = next((index for index, (left, right) in pairs if left != right), None)
        if at is not None:
            found.append((at, margin(exact, prompt + one[:at], one[at], other[at])))
    return found


def margin(exact: CpuBackend, tokens: list[int], one: int, other: int) -> float:
    """How far apart the logits of two tokens are after these."""
    chunk = torch.tensor([tokens], dtype=torch.int32)
    positions = torch.arange(len(tokens), dtype=torch.int32)[None]
    table = torch.arange(8, dtype=torch.int32)[None]
    with torch.inference_mode():
        logits = exact.model.logits(exact.model.hidden_states(chunk, positions, positions, table)[-1:])[0]
    return abs(float(logits[one] - logits[other]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    text = passage(options.model, options.prompts * PROMPT)
    prompts = [text[start : start + PROMPT] for start in range(0, len(text), PROMPT)]
    exact = backend(options.model, "float32", options.threads)
    found = {"float32": answers(exact, prompts, options.tokens)}
    reference = backend(options.model, "float32", options.threads, native=False)
    found["float32, reference"] = answers(reference, prompts, options.tokens)
    reference.close()
    for dtype in ("bfloat16", "int8", "int4"):
        engine = backend(options.model, dtype, options.threads)
        found[dtype] = answers(engine, prompts, options.tokens)
        engine.close()
    print(f"{len(prompts)} prompts of {PROMPT} tokens, each with {options.tokens} tokens of answer\n")
    print("| answers | against | same to the end | tokens before they part, median | margin, median | max |")
    print("|---|---|---|---|---|---|")
    for name, against in (
        ("float32", "float32, reference"),
        ("bfloat16", "float32"),
        ("int8", "bfloat16"),
        ("int4", "bfloat16"),
    ):
        parted = partings(exact, prompts, found[name], found[against])
        same = f"{len(prompts) - len(parted)} of {len(prompts)}"
        if parted:
            at, margins = statistics.median(at for at, _ in parted), [margin for _, margin in parted]
            closeness = f"{at:.0f} | {statistics.median(margins):.3f} | {max(margins):.3f}"
        else:
            closeness = "- | - | -"
        print(f"| {name} | {against} | {same} | {closeness} |")


if __name__ == "__main__":
    main()
