"""`nki` as the simulator has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from outcrop_kernels.nki.simulator.machine import current

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Kernel(Generic[_Arguments, _Result]):
    """What @nki.jit makes of a function. Inside of another kernel it is a call like any other."""

    def __init__(self, function: Callable[_Arguments, _Result]) -> None:
        self.func = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        current()
        return self.func(*arguments, **named)


def jit(function: Callable[_Arguments, _Result]) -> Kernel[_Arguments, _Result]:
    """Marks a kernel."""
    return Kernel(function)
