"""Instructions of the GpSimd engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import checks, dtypes, memory, values
from outcrop_kernels.nki.simulator.machine import current, instruction
from outcrop_kernels.nki.simulator.memory import MemoryRegion, Tensor
from outcrop_kernels.nki.simulator.ops import OPS, Op, checked
from outcrop_kernels.nki.simulator.rules import refuse

_COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"})
_MOST_STEPS = 4
_GATHERED_TOGETHER = 512
"""Elements per instruction of nc_n_gather."""
_START_CYCLES = 150
"""An instruction's own cost beside one cycle an element (nki.isa in the docs of SDK 2.23: iota,
affine_select; for nc_n_gather no cost is published and the same is taken)."""


@instruction
def iota(
    dst: Tensor, pattern: Any, offset: int, channel_multiplier: int = 0, name: str | None = None
) -> None:
    """dst[p, i, j, ...] = offset + p * channel_multiplier + i * step_i + j * step_j + ...; pattern is
    [[step, count], ...]."""
    machine = current()
    checks.operand(dst, "dst")
    checks.memory(dst, MemoryRegion.sbuf, "psum-access", "dst of iota")
    machine.tick()
    numbers = _affine("iota", dst, pattern, offset, channel_multiplier)
    if dtypes.is_integer(dst.dtype):
        limits = np.iinfo(dtypes.stored(dst.dtype))
        if numbers.min() < limits.min or numbers.max() > limits.max:
            refuse("dtype", f"iota writes {int(numbers.min())} to {int(numbers.max())} into {dst}")
        memory.write(dst, numbers.astype(dtypes.stored(dst.dtype)), machine.clock)
    else:
        values.store(machine, dst, numbers.astype(np.float32))
    machine.work("gpsimd", dst.free, _START_CYCLES + dst.free)


@instruction
def affine_select(
    dst: Tensor,
    *,
    pattern: Any,
    offset: int,
    channel_multiplier: int,
    on_true_tile: Tensor,
    on_false_value: float,
    cmp_op: Op = OPS["equal"],
    name: str | None = None,
) -> None:
    """dst = on_true_tile where cmp_op(offset + p * channel_multiplier + i * step_i + ..., 0), elsewhere
    on_false_value.

    Arguments are named, since their order changed between SDK 2.28 and 2.29.
    """
    machine = current()
    checks.operand(on_true_tile, "on_true_tile")
    checks.operand(dst, "dst")
    for tensor, role in ((dst, "dst of affine_select"), (on_true_tile, "on_true_tile of affine_select")):
        checks.memory(tensor, MemoryRegion.sbuf, "psum-access", role)
    checks.same_shape("affine_select", dst, on_true_tile)
    comparison = checked(cmp_op, "binary", "nisa.affine_select")
    if comparison.name not in _COMPARISONS:
        refuse("op", f"affine_select compares with one of {', '.join(sorted(_COMPARISONS))}, not {cmp_op}")
    clock = machine.tick()
    numbers = _affine("affine_select", dst, pattern, offset, channel_multiplier)
    assert comparison.binary is not None
    chosen = comparison.binary(numbers, np.zeros((1, 1), dtype=np.int64)) != 0
    given = dtypes.cast(values.bits(on_true_tile, clock), on_true_tile.dtype, dst.dtype)
    other = dtypes.from_float(np.full((1, 1), on_false_value, dtype=np.float32), dst.dtype)
    memory.write(dst, np.where(chosen, given, other), clock)
    machine.work("gpsimd", dst.free, _START_CYCLES + dst.free)


@instruction
def nc_n_gather(dst: Tensor, data: Tensor, indices: Tensor, name: str | None = None) -> None:
    """dst[p, i] = data[p, indices[p, i]], free dimensions taken as one; indices are uint32, all in SBUF."""
    machine = current()
    for tensor, role in ((dst, "dst"), (data, "data"), (indices, "indices")):
        checks.operand(tensor, role)
        checks.memory(tensor, MemoryRegion.sbuf, "psum-access", f"{role} of nc_n_gather")
    checks.same_shape("nc_n_gather", dst, indices)
    if data.shape[0] != dst.shape[0]:
        refuse("shape", f"nc_n_gather from {data} into {dst}")
    checks.types("nc_n_gather", indices, "indices", ("uint32",))
    checks.types("nc_n_gather", dst, "dst", (data.dtype,))
    clock = machine.tick()
    places = values.bits(indices, clock).astype(np.int64)
    if places.max() >= data.free:
        refuse("gather-bounds", f"nc_n_gather is given index {int(places.max())}, {data} has {data.free}")
    memory.write(dst, np.take_along_axis(values.bits(data, clock), places, axis=1), clock)
    groups = -(-dst.free // _GATHERED_TOGETHER)
    machine.work("gpsimd", dst.free, groups * _START_CYCLES + dst.free)


def _affine(instruction: str, dst: Tensor, pattern: Any, offset: int, multiplier: int) -> NDArray[np.int64]:
    """[partitions, elements per partition] of the affine expression."""
    if len(pattern) > _MOST_STEPS:
        refuse("access-pattern", f"the pattern of {instruction} has {len(pattern)} dimensions")
    numbers: NDArray[np.int64] = np.zeros((), dtype=np.int64)
    for step, count in pattern:
        steps = memory.integer(step, "a step") * np.arange(memory.integer(count, "a count"), dtype=np.int64)
        numbers = numbers[..., None] + steps
    numbers = numbers.reshape(1, -1)
    if numbers.shape[1] != dst.free:
        refuse(
            "shape", f"the pattern {pattern!r} of {instruction} has {numbers.shape[1]} elements, dst is {dst}"
        )
    start = memory.integer(offset, "offset")
    lanes = memory.integer(multiplier, "channel_multiplier") * np.arange(dst.shape[0], dtype=np.int64)
    return numbers + start + lanes[:, None]
