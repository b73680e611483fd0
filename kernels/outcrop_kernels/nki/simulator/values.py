"""Operands' values as an engine reads them, and its results as it writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import checks, dtypes, memory
from outcrop_kernels.nki.simulator.machine import Machine
from outcrop_kernels.nki.simulator.memory import Tensor
from outcrop_kernels.nki.simulator.rules import refuse


def floats(tensor: Tensor, clock: int) -> NDArray[np.float32]:
    """[partitions, elements per partition] in float32.

    Raises:
        Refused: an integer is too large to be one.
    """
    raw = memory.read(tensor, clock).reshape(tensor.shape[0], tensor.free)
    if tensor.dtype in {"int32", "uint32"} and raw.size:
        large = max(int(raw.max()), -int(raw.min()))
        if large > dtypes.EXACT_INTEGER:
            refuse("integer-precision", f"{tensor} holds {large}")
    return dtypes.to_float(raw, tensor.dtype)


def bits(tensor: Tensor, clock: int) -> NDArray[Any]:
    """[partitions, elements per partition] as stored."""
    return memory.read(tensor, clock).reshape(tensor.shape[0], tensor.free)


def store(machine: Machine, dst: Tensor, values: NDArray[Any]) -> None:
    """Rounds float32 results to the tensor's type and writes them, at the machine's clock."""
    memory.write(dst, dtypes.from_float(values.astype(np.float32, copy=False), dst.dtype), machine.clock)


def scalar_operand(
    instruction: str, operand: Any, data: Tensor, clock: int, role: str
) -> NDArray[np.float32]:
    """A constant as [1, 1], or a [P, 1] float32 tensor's values."""
    if isinstance(operand, Tensor):
        tensor = checks.operand(operand, role)
        checks.per_partition(instruction, tensor, data, role)
        if tensor.dtype != "float32":
            refuse("dtype", f"{role} of {instruction} is {tensor}, where float32 is wanted")
        return floats(tensor, clock)
    if isinstance(operand, bool) or not isinstance(operand, int | float):
        refuse("language", f"{role} of {instruction} is {operand!r}, not a number or a [P, 1] tensor")
    return np.full((1, 1), operand, dtype=np.float32)
