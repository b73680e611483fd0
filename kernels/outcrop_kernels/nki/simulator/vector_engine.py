"""Instructions of the vector engine, some of which GpSimd and the scalar engine can do too."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import checks, dtypes, memory, values
from outcrop_kernels.nki.simulator.cost import ISSUE_CYCLES
from outcrop_kernels.nki.simulator.enums import engine as engines
from outcrop_kernels.nki.simulator.machine import Machine, current, instruction
from outcrop_kernels.nki.simulator.memory import MemoryRegion, Tensor
from outcrop_kernels.nki.simulator.ops import Op, checked, reciprocal_of
from outcrop_kernels.nki.simulator.rules import refuse

_WORDS = frozenset({"int32", "uint32"})
_HALVES = frozenset({"bfloat16", "float16"})
_FAST_OPS = frozenset({"add", "multiply", "subtract"})
_RECIPROCAL_CYCLES = 8
"""Per element. Costs are those of nki.isa in the docs of SDK 2.23."""


def _engine(instruction: str, chosen: engines, allowed: tuple[engines, ...], default: engines) -> engines:
    if chosen is engines.unknown:
        return default
    if chosen not in allowed:
        refuse("engine", f"{instruction} on {chosen}: it runs on {', '.join(one.name for one in allowed)}")
    return chosen


def _reaches(instruction: str, chosen: engines, *tensors: Tensor) -> None:
    if chosen is engines.gpsimd:
        for tensor in tensors:
            if tensor.buffer is MemoryRegion.psum:
                refuse("psum-access", f"{instruction} runs on GpSimd with {tensor}")


@instruction
def memset(dst: Tensor, value: float, engine: engines = engines.unknown, name: str | None = None) -> None:
    """Fills dst with a constant."""
    machine = current()
    chosen = _engine("memset", engine, (engines.vector, engines.gpsimd), engines.vector)
    if isinstance(dst, Tensor) and not dst.on_chip:
        refuse("engine", f"memset into {dst}: fill an SBUF tensor and nisa.dma_copy it")
    checks.operand(dst, "dst")
    if isinstance(value, Tensor | bool) or not isinstance(value, int | float):
        refuse("language", f"memset is given {value!r}, not a constant")
    if dtypes.is_integer(dst.dtype) and not isinstance(value, int):
        refuse("dtype", f"memset writes {value!r} into {dst}: an integer tensor takes an integer")
    _reaches("memset", chosen, dst)
    clock = machine.tick()
    if dtypes.is_integer(dst.dtype):
        limits = np.iinfo(dtypes.stored(dst.dtype))
        if not limits.min <= value <= limits.max:
            refuse("dtype", f"memset writes {value} into {dst}")
        filled = np.full(dst.shape, value, dtype=dtypes.stored(dst.dtype))
    else:
        filled = dtypes.from_float(np.full(dst.shape, value, dtype=np.float32), dst.dtype)
    memory.write(dst, filled, clock)
    halved = value == 0 and dst.dtype in _HALVES
    machine.work(chosen.name, dst.free, dst.free // 2 if halved else dst.free)


@instruction
def tensor_copy(dst: Tensor, src: Tensor, engine: engines = engines.unknown, name: str | None = None) -> None:
    """dst = src between on-chip tensors: bits where the types are one, through float32 otherwise."""
    machine = current()
    if engine is engines.scalar:
        refuse("engine", "tensor_copy on the scalar engine: NeuronCore-v2 has nisa.activation(op=nl.copy)")
    chosen = _engine("tensor_copy", engine, (engines.vector, engines.gpsimd), engines.vector)
    checks.operand(src, "src")
    checks.operand(dst, "dst")
    checks.same_shape("tensor_copy", dst, src)
    _reaches("tensor_copy", chosen, dst, src)
    clock = machine.tick()
    if src.dtype == dst.dtype:
        memory.write(dst, values.bits(src, clock).copy(), clock)
    else:
        values.store(machine, dst, values.floats(src, clock))
    machine.work(chosen.name, dst.free, dst.free)


@instruction
def tensor_copy_predicated(
    dst: Tensor, src: float | Tensor, predicate: Tensor, reverse_pred: bool = False, name: str | None = None
) -> None:
    """dst = src where predicate is not zero (or, reversed, where it is); elsewhere dst keeps its elements."""
    machine = current()
    checks.operand(dst, "dst")
    checks.operand(predicate, "predicate")
    checks.types("tensor_copy_predicated", predicate, "predicate", ("uint8", "uint16", "uint32"))
    checks.same_shape("tensor_copy_predicated", dst, predicate)
    clock = machine.tick()
    chosen = (values.bits(predicate, clock) != 0) ^ bool(reverse_pred)
    if isinstance(src, Tensor):
        checks.operand(src, "src")
        checks.same_shape("tensor_copy_predicated", dst, src)
        checks.not_both_in_psum("tensor_copy_predicated", src, predicate)
        if src.dtype != dst.dtype:
            refuse("dtype", f"tensor_copy_predicated of {src} into {dst}: both are of one type")
        given = values.bits(src, clock)
    else:
        constant = np.full((1, 1), src, dtype=np.float32)
        given = dtypes.from_float(constant, dst.dtype)
    kept = values.bits(dst, clock)
    memory.write(dst, np.where(chosen, given, kept), clock)
    both = isinstance(src, Tensor) and MemoryRegion.psum not in (src.buffer, predicate.buffer)
    machine.work("vector", dst.free, 2 * dst.free if both else dst.free)


@instruction
def tensor_tensor(
    dst: Tensor,
    data1: Tensor,
    data2: Tensor,
    op: Op,
    engine: engines = engines.unknown,
    name: str | None = None,
) -> None:
    """dst = data1 <op> data2, element by element: in float32, or, where all are 32-bit integers (on GpSimd)
    or the operator is on bits, in integers."""
    machine = current()
    operator = checked(op, "binary", "nisa.tensor_tensor")
    for tensor, role in ((data1, "data1"), (data2, "data2"), (dst, "dst")):
        checks.operand(tensor, role)
    checks.same_shape("tensor_tensor", dst, data1, data2)
    checks.not_both_in_psum("tensor_tensor", data1, data2)
    exact = operator.bits or all(tensor.dtype in _WORDS for tensor in (dst, data1, data2))
    in_psum = any(tensor.buffer is MemoryRegion.psum for tensor in (dst, data1, data2))
    gpsimd = operator.name == "power" or (exact and not operator.bits and not in_psum)
    default = engines.gpsimd if gpsimd else engines.vector
    chosen = _engine("tensor_tensor", engine, (engines.vector, engines.gpsimd), default)
    if operator.name == "power" and chosen is engines.vector:
        refuse("engine", "tensor_tensor(op=nl.power) runs on GpSimd only")
    _reaches(f"tensor_tensor(op={operator})", chosen, dst, data1, data2)
    clock = machine.tick()
    assert operator.binary is not None
    if operator.bits:
        checks.integers(f"tensor_tensor(op={operator})", dst, data1, data2)
        result = operator.binary(values.bits(data1, clock), values.bits(data2, clock))
        memory.write(dst, result.astype(dtypes.stored(dst.dtype)), clock)
    elif exact and chosen is engines.gpsimd:
        left = values.bits(data1, clock).astype(np.int64)
        right = values.bits(data2, clock).astype(np.int64)
        result = operator.binary(left, right)
        memory.write(dst, result.astype(np.int64).astype(dtypes.stored(dst.dtype)), clock)
    else:
        values.store(machine, dst, operator.binary(values.floats(data1, clock), values.floats(data2, clock)))
    machine.work(chosen.name, dst.free, _two_inputs(operator, dst, data1, data2))


def _two_inputs(op: Op, dst: Tensor, data1: Tensor, data2: Tensor) -> int:
    """Cycles of tensor_tensor."""
    if MemoryRegion.psum in (data1.buffer, data2.buffer):
        return dst.free
    halves = all(tensor.dtype == "bfloat16" for tensor in (dst, data1, data2))
    if halves and op.name in _FAST_OPS and data1.contiguous and data2.contiguous:
        return dst.free
    return 2 * dst.free


@instruction
def tensor_scalar(
    dst: Tensor,
    data: Tensor,
    op0: Op,
    operand0: float | Tensor | None,
    reverse0: bool = False,
    op1: Op | None = None,
    operand1: float | Tensor | None = None,
    reverse1: bool = False,
    engine: engines = engines.unknown,
    name: str | None = None,
) -> None:
    """dst = (data <op0> operand0) <op1> operand1; operands are constants or float32 [P, 1] tensors, and for
    operators on bits integer constants or [P, 1] tensors of data's type."""
    machine = current()
    rsqrt = isinstance(op0, Op) and op0.name == "rsqrt"
    default = engines.gpsimd if rsqrt else engines.vector
    chosen = _engine("tensor_scalar", engine, (engines.vector, engines.gpsimd), default)
    if rsqrt != (chosen is engines.gpsimd):
        refuse("engine", "tensor_scalar: nl.rsqrt, and nothing else, runs on GpSimd")
    checks.operand(data, "data")
    checks.operand(dst, "dst")
    checks.same_shape("tensor_scalar", dst, data)
    _reaches("tensor_scalar", chosen, dst, data)
    clock = machine.tick()
    stages = [(op0, operand0, reverse0, "operand0")]
    if op1 is not None:
        stages.append((op1, operand1, reverse1, "operand1"))
    elif operand1 is not None:
        refuse("op", "tensor_scalar has an operand1 and no op1")
    bitwise = [isinstance(op, Op) and op.bits for op, *_ in stages]
    if any(bitwise) and not all(bitwise):
        refuse("op", f"tensor_scalar mixes {op0} and {op1}: both work on bits or neither does")
    if all(bitwise):
        _bits_and_scalars(machine, dst, data, stages)
    else:
        result = values.floats(data, clock)
        for op, operand, reverse, role in stages:
            result = with_scalar(result, op, operand, reverse, data, clock, role)
        values.store(machine, dst, result)
    machine.work(chosen.name, dst.free, dst.free)


def with_scalar(
    inputs: NDArray[np.float32], op: Any, operand: Any, reverse: bool, data: Tensor, clock: int, role: str
) -> NDArray[np.float32]:
    """inputs <op> operand in float32, with a constant or [P, 1] operand."""
    if isinstance(op, Op) and op.unary is not None:
        if operand is not None and operand != 0:
            refuse("op", f"{op} takes one input: {role} is None or 0")
        return op.unary(inputs)
    operator = checked(op, "binary", "tensor_scalar")
    assert operator.binary is not None
    scalar = values.scalar_operand("tensor_scalar", operand, data, clock, role)
    return operator.binary(scalar, inputs) if reverse else operator.binary(inputs, scalar)


def _bits_and_scalars(
    machine: Machine, dst: Tensor, data: Tensor, stages: list[tuple[Any, Any, bool, str]]
) -> None:
    checks.integers("tensor_scalar on bits", dst, data)
    kind = dtypes.stored(data.dtype)
    result = values.bits(data, machine.clock)
    for op, operand, reverse, role in stages:
        if isinstance(operand, Tensor):
            checks.operand(operand, role)
            checks.per_partition("tensor_scalar", operand, data, role)
            checks.integers("tensor_scalar on bits", operand)
            scalar = values.bits(operand, machine.clock).astype(kind)
        elif isinstance(operand, int) and not isinstance(operand, bool):
            scalar = np.full((1, 1), operand, dtype=kind)
        else:
            refuse("dtype", f"{role} of tensor_scalar({op}) is {operand!r}: operators on bits take integers")
        result = op.binary(scalar, result) if reverse else op.binary(result, scalar)
    memory.write(dst, result.astype(dtypes.stored(dst.dtype)), machine.clock)


@instruction
def scalar_tensor_tensor(
    dst: Tensor,
    data: Tensor,
    op0: Op,
    operand0: float | Tensor,
    op1: Op,
    operand1: Tensor,
    reverse0: bool = False,
    reverse1: bool = False,
    name: str | None = None,
) -> None:
    """dst = (data <op0> operand0) <op1> operand1 in float32: operand0 is a constant or [P, 1], operand1 is
    shaped as data."""
    machine = current()
    for tensor, role in ((data, "data"), (operand1, "operand1"), (dst, "dst")):
        checks.operand(tensor, role)
    checks.same_shape("scalar_tensor_tensor", dst, data, operand1)
    checks.not_both_in_psum("scalar_tensor_tensor", data, operand1)
    clock = machine.tick()
    second = checked(op1, "binary", "nisa.scalar_tensor_tensor")
    if second.bits or (isinstance(op0, Op) and op0.bits):
        refuse("op", "scalar_tensor_tensor takes arithmetic operators only")
    first = with_scalar(values.floats(data, clock), op0, operand0, reverse0, data, clock, "operand0")
    other = values.floats(operand1, clock)
    assert second.binary is not None
    values.store(machine, dst, second.binary(other, first) if reverse1 else second.binary(first, other))
    machine.work("vector", dst.free, 2 * dst.free)


@instruction
def tensor_reduce(
    dst: Tensor,
    op: Op,
    data: Tensor,
    axis: int | tuple[int, ...],
    negate: bool = False,
    keepdims: bool = False,
    name: str | None = None,
) -> None:
    """Reduces the last free dimensions, those of `axis`, in float32 (in integers for operators on bits)."""
    machine = current()
    checks.operand(data, "data")
    checks.operand(dst, "dst")
    operator = checked(op, "reduction", "nisa.tensor_reduce")
    axes = tuple(sorted({axis} if isinstance(axis, int) else set(axis)))
    axes = tuple(one % data.ndim for one in axes)
    if 0 in axes or axes != tuple(range(data.ndim - len(axes), data.ndim)):
        refuse("shape", f"tensor_reduce of {data} over axis {axis}: the last free dimensions are reduced")
    kept = data.shape[1 : data.ndim - len(axes)]
    if dst.shape[0] != data.shape[0] or dst.free != int(np.prod(kept, dtype=int)):
        refuse("shape", f"tensor_reduce of {data} over axis {axis} into {dst}")
    clock = machine.tick()
    assert operator.reduction is not None
    if operator.bits:
        checks.integers("tensor_reduce", dst, data)
        result = operator.reduction(values.bits(data, clock).reshape(*data.shape[: -len(axes)], -1), axis=-1)
        memory.write(dst, result.astype(dtypes.stored(dst.dtype)), clock)
    else:
        inputs = values.floats(data, clock).reshape(*data.shape[: -len(axes)], -1)
        result = operator.reduction(inputs, axis=-1)
        values.store(machine, dst, -result if negate else result)
    halved = dst.dtype == data.dtype == "bfloat16" and operator.name in {"add", "maximum"}
    machine.work("vector", data.free, data.free // 2 if halved else data.free)


@instruction
def reciprocal(dst: Tensor, data: Tensor, name: str | None = None) -> None:
    """dst = 1 / data in float32."""
    machine = current()
    checks.operand(data, "data")
    checks.operand(dst, "dst")
    checks.same_shape("reciprocal", dst, data)
    clock = machine.tick()
    values.store(machine, dst, reciprocal_of(values.floats(data, clock)))
    machine.work("vector", dst.free, _RECIPROCAL_CYCLES * dst.free)


@instruction
def tensor_scalar_reduce(
    dst: Tensor,
    data: Tensor,
    op0: Op,
    operand0: float | Tensor,
    reduce_op: Op,
    reduce_res: Tensor,
    reverse0: bool = False,
    name: str | None = None,
) -> None:
    """dst = data <op0> operand0 in float32, and its reduction over the free dimensions into
    reduce_res [P, 1]."""
    machine = current()
    for tensor, role in ((data, "data"), (dst, "dst"), (reduce_res, "reduce_res")):
        checks.operand(tensor, role)
    checks.same_shape("tensor_scalar_reduce", dst, data)
    checks.per_partition("tensor_scalar_reduce", reduce_res, data, "reduce_res")
    operator = checked(reduce_op, "reduction", "nisa.tensor_scalar_reduce")
    if operator.bits or (isinstance(op0, Op) and op0.bits):
        refuse("op", "tensor_scalar_reduce takes arithmetic operators only")
    clock = machine.tick()
    result = with_scalar(values.floats(data, clock), op0, operand0, reverse0, data, clock, "operand0")
    assert operator.reduction is not None
    values.store(machine, dst, result)
    values.store(machine, reduce_res, operator.reduction(result, axis=1)[:, None])
    machine.work("vector", data.free, data.free + ISSUE_CYCLES)
