"""`python -m tests.neuron.contracts --checkout PATH [--source NAME]`: check the list against public source.

PATH: a checkout of the source's repository (nxd is https://github.com/aws-neuron/neuronx-distributed, sdk is
https://github.com/aws-neuron/aws-neuron-sdk), or an environment's site-packages that has that package. Exits
with 1 where they differ.

`--list tests/vllm_packages/surface/0.13.0.toml` checks what a stand-in takes, in the same form.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .contract import LIST, check, read


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.neuron.contracts", description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True, metavar="PATH")
    parser.add_argument("--source", default="nxd", help="which source of the list it is (default: nxd)")
    parser.add_argument("--list", type=Path, default=LIST, metavar="FILE", help="another list than Outcrop's")
    arguments = parser.parse_args()
    contract, checkout = read(arguments.list), arguments.checkout
    if arguments.source not in contract.sources:
        parser.error(f"--source {arguments.source}: there are {', '.join(contract.sources)}")
    with tempfile.TemporaryDirectory() as folder:
        if not (checkout / "src").exists() and (checkout / "neuronx_distributed").exists():
            # Installed: the same tree, without its `src`.
            (Path(folder) / "src").symlink_to(checkout.resolve(), target_is_directory=True)
            checkout = Path(folder)
        problems = check(contract, arguments.source, checkout)
    names = [each for each in contract.names.values() if each.source == arguments.source]
    for problem in problems:
        print(problem)
    count = sum(len(each.arguments) for each in names)
    words = sum(len(each.words) for each in contract.texts if each.source == arguments.source)
    source = contract.sources[arguments.source]
    print(
        f"{len(names)} names, {count} arguments and {words} words of {source.repository} checked against "
        f"{arguments.checkout}: {len(problems)} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
