"""`nki` as the simulator has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from outcrop_kernels.nki.simulator.machine import current


class Kernel:
    """What @nki.jit makes of a function. Inside of another kernel it is a call like any other."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.func = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        current()
        return self.func(*arguments, **named)


def jit(function: Callable[..., Any]) -> Kernel:
    """Marks a kernel."""
    return Kernel(function)
