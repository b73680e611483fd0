"""Tensor-parallel ranks that are threads of one process, and the collectives between them."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from outcrop_compile.llama import TensorParallel


class Meeting:
    """Where `world` threads, each a rank in eager mode, exchange tensors. patience: seconds that one waits
    for the others; None for ever."""

    def __init__(self, world: int, patience: float | None = None) -> None:
        self.world = world
        self._barrier = threading.Barrier(world, timeout=patience)
        self._given: list[Tensor] = [torch.empty(0)] * world

    def parallel(self, rank: int) -> TensorParallel:
        """A rank's own collectives. They raise threading.BrokenBarrierError where a rank did not come."""

        def exchange(tensor: Tensor) -> list[Tensor]:
            self._given[rank] = tensor
            self._barrier.wait()
            found = list(self._given)
            # Nobody gives the next tensor before all have taken these.
            self._barrier.wait()
            return found

        return TensorParallel(
            rank,
            self.world,
            lambda tensor: torch.stack(exchange(tensor)).sum(dim=0),
            lambda tensor: torch.cat(exchange(tensor), dim=-1),
        )

    def abort(self) -> None:
        """Let nobody wait for a rank that failed."""
        self._barrier.abort()
