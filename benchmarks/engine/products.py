"""How near the native products of matrices come to what a core can multiply and add, by rows and weights.

    python benchmarks/engine/products.py [--rows 1 4 8 32 128] [--dtypes float32 bfloat16 int8] [--threads 1]

The products of one token's way through the layers of SmolLM2-135M, with random weights that no cache holds
together, in one recorded program. Each figure is the best of `--repeats`, since what else happens on a
machine only ever adds time. The limit is what a loop in registers multiplies and adds in float32, taken in
between; products of integers may exceed it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.limits import Probe

from outcrop_kernels.cpu.native import operations
from outcrop_kernels.cpu.native.library import start
from outcrop_kernels.cpu.native.recording import Recorded
from outcrop_kernels.quantised import Quantised

SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
LAYERS = 30


def weight(features: int, depth: int, dtype: str) -> Tensor:
    if dtype == "int8":
        codes = torch.randint(-127, 128, (features, depth), dtype=torch.int8)
        return operations.pack(Quantised(codes, torch.rand(features, 1) / 1000, None, 8))
    return operations.pack(torch.randn(features, depth).to(getattr(torch, dtype)))


def program(dtype: str) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    weights = [(depth, weight(features, depth, dtype)) for _ in range(LAYERS) for features, depth in SHAPES]

    def products(narrow: Tensor, wide: Tensor) -> tuple[Tensor, ...]:
        inputs = {narrow.shape[1]: narrow, wide.shape[1]: wide}
        return tuple([operations.linear(inputs[depth], packed) for depth, packed in weights][-1:])

    return Recorded(products)


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure(dtype: str, rows: Sequence[int], repeats: int, probe: Probe) -> None:
    run = program(dtype)
    each = LAYERS * sum(features * depth for features, depth in SHAPES)
    for count in rows:
        arguments = tuple(torch.randn(count, depth) for depth in (576, 1536))
        run(*arguments)
        seconds = best_seconds(partial(run, *arguments), repeats)
        reached, limit = each * count / seconds, probe.fma(repeats=3)
        print(
            f"| {dtype} | {count} | {1e3 * seconds:.2f} | {reached / 1e9:.1f} | {limit / 1e9:.1f} "
            f"| {reached / limit:.0%} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 12, 32, 128])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "int8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads of torch's own would wait, busily, on the team's cores
    probe = Probe()
    probe.threads = options.threads
    print(f"{start(options.threads)} kernels, threads: {options.threads}\n")
    print("| weights | rows | ms | 10⁹ multiply-adds a second | limit | share |\n|---|---|---|---|---|---|")
    for dtype in options.dtypes:
        measure(dtype, options.rows, options.repeats, probe)


if __name__ == "__main__":
    main()
