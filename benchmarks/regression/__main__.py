"""Whether a change has made anything slower.

python -m benchmarks.regression [--repeats 5] [--write]

Compares ratios with those in ratios.json, for this processor's instruction set: each is a time over what a
calibration loop takes at the same moment, so a slower machine changes both. Ends with status 1 if one has
grown by more than the file's tolerance. --write puts this run's in the file. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.regression.measures import measures

_FILE = Path(__file__).with_name("ratios.json")


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.regression", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with measures() as (isa, found):
        ratios = {name: _median(measure, options.repeats) for name, measure in found.all().items()}
    committed = json.loads(_FILE.read_text())
    if options.write:
        committed["ratios"][isa] = {name: round(ratio, 3) for name, ratio in ratios.items()}
        _FILE.write_text(json.dumps(committed, indent=2) + "\n")
    known = committed["ratios"].get(isa)
    if known is None:
        print(f"{_FILE.name} has no ratios for {isa}; --write adds this run's", file=sys.stderr)
        return 2
    return _compare(ratios, known, committed["tolerance"])


def _median(measure: Callable[[], float], repeats: int) -> float:
    measure()  # the first time records and warms up
    return statistics.median(measure() for _ in range(repeats))


def _compare(ratios: dict[str, float], known: dict[str, float], tolerance: float) -> int:
    print("| | committed | now | change |\n|---|---|---|---|")
    slower = 0
    for name, ratio in ratios.items():
        change = ratio / known[name] - 1
        slower += change > tolerance
        verdict = " **slower**" if change > tolerance else ""
        print(f"| {name} | {known[name]:.2f} | {ratio:.2f} | {change:+.0%}{verdict} |")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
