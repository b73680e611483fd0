"""Instructions of the scalar engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import checks, values
from outcrop_kernels.nki.simulator.cost import ISSUE_CYCLES
from outcrop_kernels.nki.simulator.enums import reduce_cmd as commands
from outcrop_kernels.nki.simulator.machine import Machine, current, instruction
from outcrop_kernels.nki.simulator.memory import Tensor
from outcrop_kernels.nki.simulator.ops import Op, checked
from outcrop_kernels.nki.simulator.rules import refuse


@instruction
def activation(
    dst: Tensor,
    op: Op,
    data: Tensor,
    bias: Tensor | None = None,
    scale: float | Tensor = 1.0,
    reduce_op: Op | None = None,
    reduce_res: Tensor | None = None,
    reduce_cmd: commands = commands.idle,
    name: str | None = None,
) -> None:
    """dst = op(data * scale + bias) in float32; bias and a tensor scale are [P, 1].

    With reduce_cmd `reset_reduce` or `reduce`, the sums over the free dimensions go into the engine's
    accumulators, whose state reduce_res [P, 1] receives.
    """
    _activation(dst, op, data, bias, scale, reduce_op, reduce_res, reduce_cmd)


def _activation(
    dst: Tensor,
    op: Op,
    data: Tensor,
    bias: Tensor | None,
    scale: float | Tensor,
    reduce_op: Op | None,
    reduce_res: Tensor | None,
    reduce_cmd: commands,
) -> None:
    machine = current()
    results = _activated(machine, dst, op, data, bias, scale)
    sums = machine.sums[: results.shape[0]]
    if reduce_cmd is commands.load_reduce:
        refuse("op", "nisa.activation does not load its accumulators")
    if reduce_op is not None and reduce_op.name != "add":
        refuse("op", f"nisa.activation reduces with {reduce_op}, on NeuronCore-v2 nl.add is all there is")
    if reduce_cmd in {commands.reset, commands.reset_reduce}:
        sums[:] = 0
    if reduce_cmd in {commands.reduce, commands.reset_reduce}:
        if reduce_op is None:
            refuse("op", "nisa.activation is told to reduce, without reduce_op=nl.add")
        sums += results.sum(axis=1)
    values.store(machine, dst, results)
    if reduce_res is not None:
        _read_sums(machine, reduce_res, data, sums)


@instruction
def activation_reduce(
    dst: Tensor,
    op: Op,
    data: Tensor,
    reduce_op: Op,
    reduce_res: Tensor,
    bias: Tensor | None = None,
    scale: float | Tensor = 1.0,
    name: str | None = None,
) -> None:
    """nisa.activation, and the sums of its results over the free dimensions into reduce_res [P, 1]."""
    _activation(dst, op, data, bias, scale, reduce_op, reduce_res, commands.reset_reduce)


def _activated(
    machine: Machine, dst: Tensor, op: Op, data: Tensor, bias: Any, scale: float | Tensor
) -> NDArray[np.float32]:
    checks.operand(data, "data")
    checks.operand(dst, "dst")
    checks.same_shape("activation", dst, data)
    function = checked(op, "activation", "nisa.activation")
    clock = machine.tick()
    inputs = values.floats(data, clock) * values.scalar_operand("activation", scale, data, clock, "scale")
    if bias is not None:
        if not isinstance(bias, Tensor) or op.name == "reciprocal":
            refuse("activation-bias", f"bias of nisa.activation({op}) is {bias!r}")
        checks.operand(bias, "bias")
        checks.per_partition("activation", bias, data, "bias")
        inputs = inputs + values.floats(bias, clock)
    _check_range(function, inputs)
    machine.work("scalar", data.free, data.free)
    assert function.activation is not None
    return function.activation(inputs).astype(np.float32, copy=False)


def _check_range(op: Op, inputs: NDArray[np.float32]) -> None:
    lowest, highest = op.valid
    sizes = np.abs(inputs) if op.name == "reciprocal" else inputs
    outside = (sizes < lowest) | (sizes > highest)
    if outside.any():
        refuse(
            "activation-range",
            f"nisa.activation({op}) is given {float(inputs[outside][0]):g}; it holds from {lowest:g} to "
            f"{highest:g}",
        )


def _read_sums(machine: Machine, reduce_res: Tensor, data: Tensor, sums: NDArray[np.float32]) -> None:
    checks.operand(reduce_res, "reduce_res")
    checks.per_partition("activation", reduce_res, data, "reduce_res")
    machine.tick()
    values.store(machine, reduce_res, sums[:, None].copy())
    machine.work("scalar", 1, ISSUE_CYCLES)
