"""A second opinion: AWS's own simulator (nki.simulate, SDK 2.29 and later), where its package is installed.

It checks less, above all no capacities, but it is AWS's reading of each instruction. It runs in a process of
its own, since kernels are bound either to its package or to the simulator's. Written from its documentation
(nki/guides/nki_simulator.rst in https://github.com/aws-neuron/aws-neuron-sdk); not yet run with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from outcrop_kernels.nki.language import SIMULATED, installed, nki

Runs = Iterable[tuple[str, Any, tuple[Any, ...]]]
"""(name, kernel, arguments), the arrays among them torch tensors."""

_TARGET = {"NEURON_PLATFORM_TARGET_OVERRIDE": "trn1", "NKI_PRECISE_FP": "1"}
"""Without the first it simulates Trn3; with the second, low-precision types are rounded."""


def results(runs: str, paths: Iterable[str] = ()) -> dict[str, tuple[Tensor, ...]]:
    """What AWS's simulator makes of some kernels.

    Args:
        runs: "module:function" of a function that gives them as `Runs`.
        paths: more directories to import from.

    Raises:
        RuntimeError: AWS's package is not here, or it failed; with what it said.
    """
    with TemporaryDirectory() as scratch:
        saved = Path(scratch) / "results"
        environment = {**os.environ, **_TARGET, "PYTHONPATH": os.pathsep.join([*paths, *sys.path])}
        environment.pop("OUTCROP_NKI", None)
        done = subprocess.run(
            [sys.executable, "-m", "outcrop_kernels.nki.aws", runs, str(saved)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"AWS's simulator did not run {runs}:\n{done.stderr.strip()}")
        found: dict[str, tuple[Tensor, ...]] = torch.load(saved, weights_only=True)
    return found


def run(runs: str, saved: str) -> None:
    """Runs the kernels that "module:function" gives on AWS's simulator, and saves the results.

    Raises:
        SystemExit: it is not here.
    """
    if SIMULATED:
        raise SystemExit("AWS's nki package is not installed: it comes with the Neuron SDK")
    if not hasattr(nki, "simulate"):
        raise SystemExit("AWS's nki package has no simulate: SDK 2.29 is the first that has it")
    module, function = runs.split(":")
    made = {}
    for name, kernel, arguments in getattr(import_module(module), function)():
        outputs = nki.simulate(kernel)(*arguments)
        made[name] = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.save(made, saved)


__all__ = ["Runs", "installed", "results", "run"]

if __name__ == "__main__":
    run(*sys.argv[1:])
