"""How long `outcrop serve` takes to be ready on the demo model, and the memory its processes hold.

python benchmarks/api/startup.py [--runs 5] [options of outcrop serve, such as --weight-cache off]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from load.converse import run_load
from load.server import served


def resident_mb(root: psutil.Process) -> float:
    return sum(each.memory_info().rss for each in (root, *root.children(recursive=True))) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    options, serve = parser.parse_known_args()
    seconds, idle, loaded = [], [], []
    prompts = [f"Tell me a long story about the number {n}." for n in range(64)]
    for run in range(options.runs):
        with served(*serve) as (url, process, ready_after):
            seconds.append(ready_after)
            idle.append(resident_mb(process))
            asyncio.run(run_load(url, "demo", prompts, 64, 32))
            loaded.append(resident_mb(process))
        print(
            f"run {run + 1}: ready after {ready_after:.2f} s, {idle[-1]:.0f} MB, loaded {loaded[-1]:.0f} MB",
            file=sys.stderr,
        )
    print("| | median | min | max |\n|---|---|---|---|")
    for name, values in (
        ("launch to ready, s", seconds),
        ("resident when ready, MB", idle),
        ("resident after 64 calls, 32 at a time, MB", loaded),
    ):
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
