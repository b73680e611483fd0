"""Output tokens per second against Hugging Face `generate`, at several concurrencies.

python benchmarks/peers/huggingface.py [--concurrency 1 8 32] [--rounds 5] [--dtype float32]

Both run the demo model with greedy sampling and the same prompts, in turn, round after round; `generate` in
float32, which is its faster precision on a CPU that does not multiply bfloat16 in hardware, Outcrop in
`--dtype`.
Outcrop is called over HTTP (ConverseStream, event-stream decoded in this process); `generate` runs in this
process on one left-padded batch, without HTTP or a server, which flatters it. Both stop at the end of turn,
and only tokens before that are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from load.converse import run_load
from load.server import DEMO, served
from transformers import AutoModelForCausalLM

from outcrop.text.chat_template import ChatMessage, load_chat_template
from outcrop.text.tokenizer import load_tokenizer

SUBJECTS = ("a dragon", "the sea", "a clockmaker", "two foxes", "winter", "a lighthouse", "bread", "the moon")


def prompts(count: int, salt: int) -> list[str]:
    """Requests for long answers, no two alike, so that nothing but the template's head is cached."""
    return [
        f"{salt * 1000 + n}: write a very long story about {SUBJECTS[n % len(SUBJECTS)]}, with many details."
        for n in range(count)
    ]


def huggingface(model: Any, encoded: list[list[int]], max_tokens: int, end: int) -> tuple[int, float]:
    """Output tokens, and seconds, of one batch."""
    width = max(map(len, encoded))
    ids = torch.tensor([[end] * (width - len(each)) + each for each in encoded])
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in encoded])
    begun = time.perf_counter()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
    seconds = time.perf_counter() - begun
    rows = [row.tolist() for row in out[:, width:]]
    return sum(row.index(end) + 1 if end in row else len(row) for row in rows), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32", help="of Outcrop")
    options = parser.parse_args()
    tokenizer = load_tokenizer(DEMO)
    template = load_chat_template(DEMO, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(DEMO.parent, gguf_file=DEMO.name, dtype=torch.float32).eval()
    end = tokenizer.eos_ids[0]
    print(f"| at once | HF generate tok/s | Outcrop tok/s | ratio, median of {options.rounds} | min | max |")
    print("|---|---|---|---|---|---|")
    with served("--dtype", options.dtype, "--kv-memory", "512M") as (url, _, _):
        for concurrency in options.concurrency:
            theirs, ours = [], []
            for round_number in range(options.rounds + 1):  # the first warms both up
                texts = prompts(concurrency, round_number)
                encoded = [template.encode([ChatMessage("user", text)]) for text in texts]
                tokens, seconds = huggingface(model, encoded, options.max_tokens, end)
                begun = time.perf_counter()
                calls = asyncio.run(run_load(url, "demo", texts, options.max_tokens, concurrency))
                our_seconds = time.perf_counter() - begun
                if round_number:
                    theirs.append(tokens / seconds)
                    ours.append(sum(call.output_tokens for call in calls) / our_seconds)
            ratios = [mine / peer for mine, peer in zip(ours, theirs, strict=True)]
            print(
                f"| {concurrency} | {statistics.median(theirs):.1f} | {statistics.median(ours):.1f} "
                f"| {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
