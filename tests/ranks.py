"""Ranks as processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import torch.multiprocessing

# Ranks are forked from one process that has imported this much, which takes longer than what they do.
_IMPORTED = [
    "numpy",
    "safetensors.torch",
    "torch.distributed",
    "outcrop_compile.llama",
    "outcrop_compile.weights",
]


def run_processes(function: Callable[..., None], world: int, *arguments: object) -> None:
    """Call a module's function as function(rank, world, *arguments) in `world` processes. Raises what one
    raised."""
    multiprocessing.set_forkserver_preload(_IMPORTED)
    torch.multiprocessing.start_processes(
        function, (world, *arguments), nprocs=world, start_method="forkserver"
    )
