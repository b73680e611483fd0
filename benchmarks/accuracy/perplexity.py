"""Perplexity of a model on a text of its own words, for each type of weights.

    python benchmarks/accuracy/perplexity.py [--dtypes float32 bfloat16 int8 int4] [--tokens 20000]

The text is Python's documentation of its own language (pydoc's topics, PSF licence), which every interpreter
has. It is read in windows of 1,024 tokens, of which each but the first is predicted from those before it.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch

from outcrop.backends.cpu import CpuBackend
from outcrop.text.tokenizer import load_tokenizer
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.weights import load_weights

DEMO = Path(__file__).parents[2] / ".demo" / "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW, CHUNK = 1024, 256


def passage(model: Path, count: int) -> list[int]:
    """The first tokens of the text."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    return load_tokenizer(model).encode(text[: 8 * count])[:count]


def backend(model: Path, dtype: str, kernels: str, threads: int | None) -> CpuBackend:
    native = kernels == "native"
    checkpoint = open_checkpoint(model)
    return CpuBackend(
        checkpoint.config,
        load_weights(checkpoint, dtype=dtype, plain="bfloat16" if native else "float32"),
        kv_memory=256 << 20,
        max_model_len=WINDOW,
        max_rows=1,
        block_size=32,
        depth=1,
        threads=threads,
        native=native,
    )


def log_loss(engine: CpuBackend, tokens: list[int]) -> list[float]:
    """Of each token but the first, in nats, given those before it."""
    table = torch.arange(WINDOW // 32, dtype=torch.int32)[None]
    losses: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(tokens), CHUNK):
            chunk = torch.tensor([tokens[start : start + CHUNK]], dtype=torch.int32)
            positions = torch.arange(start, start + chunk.shape[1], dtype=torch.int32)[None]
            hidden = engine.model.hidden_states(chunk, positions, positions, table)
            following = torch.tensor(tokens[start + 1 : start + CHUNK + 1])
            logits = engine.model.logits(hidden)[: len(following)].float()
            losses += torch.nn.functional.cross_entropy(logits, following, reduction="none").tolist()
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8", "int4"])
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--kernels", choices=("native", "torch"), default="native")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    tokens = passage(options.model, options.tokens)
    windows = [tokens[start : start + WINDOW] for start in range(0, len(tokens), WINDOW)]
    print(f"{len(tokens)} tokens in {len(windows)} windows, {options.kernels} kernels\n")
    print("| weights | perplexity | rise | seconds |\n|---|---|---|---|")
    first = None
    for dtype in options.dtypes:
        begun, engine = time.perf_counter(), backend(options.model, dtype, options.kernels, options.threads)
        losses = [loss for window in windows for loss in log_loss(engine, window)]
        engine.close()
        perplexity = math.exp(sum(losses) / len(losses))
        first = first or perplexity
        rise = f"{100 * (perplexity / first - 1):+.2f} %"
        print(f"| {dtype} | {perplexity:.4f} | {rise} | {time.perf_counter() - begun:.0f} |", flush=True)


if __name__ == "__main__":
    main()
