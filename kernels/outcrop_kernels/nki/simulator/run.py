"""Running a kernel on the simulated core."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import dtypes, language, memory
from outcrop_kernels.nki.simulator.budget import check_budgets
from outcrop_kernels.nki.simulator.cost import Report
from outcrop_kernels.nki.simulator.machine import Machine, Order, current, reordered, running
from outcrop_kernels.nki.simulator.memory import MemoryRegion, Storage, Tensor, dense
from outcrop_kernels.nki.simulator.rules import RULES, Place, Refused, of_simulator, refuse
from outcrop_kernels.nki.simulator.source import check_source

TARGETS = ("trn1", "inf2")
SEEDS = (0, 1)
"""Other orders of affine_range loops that `simulate` tries beside the source's: turned round, shuffled."""

_AGREEMENT = {"float32": 1e-5, "tfloat32": 1e-3, "float16": 1e-3, "bfloat16": 8e-3}
"""Of the largest value: sums of matmuls in another order differ by rounding."""


def simulate(
    kernel: Callable[..., Any],
    *arguments: Any,
    target: str = "trn1",
    mutable: Sequence[str] = (),
    indirect_dma: bool = False,
    seeds: Sequence[int] = SEEDS,
    **named: Any,
) -> tuple[Any, Report]:
    """Runs a kernel and counts what it does.

    Args:
        kernel: a function, decorated with @nki.jit or not.
        arguments, named: the kernel's own. numpy arrays and torch tensors become HBM tensors; anything else
            is passed on.
        target: "trn1" or "inf2", both NeuronCore-v2.
        mutable: names of parameters whose tensors the kernel may write in place; it has to return them. The
            caller's arrays stay as they are.
        indirect_dma: whether gather and scatter by an index per partition are available.
        seeds: one more run per seed with nl.affine_range loops in another order (0: turned round, others:
            shuffled); results must agree.

    Returns:
        What the kernel returns (one array or a tuple): torch tensors where an argument was one, else numpy
        arrays, bfloat16 as float32. And the counts of the run in source order.

    Raises:
        Refused: the chip or the compiler would not take the kernel.
        ValueError: the target is unknown.
        RuntimeError: the kernel was imported with AWS's package instead of the simulator's.
    """
    if target not in TARGETS:
        raise ValueError(f"target {target!r}: the simulator knows {' and '.join(TARGETS)}, NeuronCore-v2")
    function = getattr(kernel, "func", kernel)
    if function.__globals__.get("nl", language) is not language:
        raise RuntimeError(
            f"{function.__name__} is bound to AWS's nki package. Set OUTCROP_NKI=simulator before its import"
        )
    check_source(function)

    def run(order: Order | None) -> tuple[Any, Machine]:
        machine = Machine(Report(target), indirect_dma, order)
        # The engines make infinities and NaN without a word.
        with running(machine), np.errstate(all="ignore"):
            results = _call(function, arguments, named, mutable)
        machine.report.scheduled_seconds = machine.schedule.end
        check_budgets(machine)
        return results, machine

    results, machine = run(None)
    for seed in seeds if machine.loops else ():
        _compare_orders(run, results, machine, seed)
    return _given_back(results, arguments, named), machine.report


def _call(function: Callable[..., Any], arguments: Any, named: Any, mutable: Sequence[str]) -> Any:
    bound = inspect.signature(function).bind(*arguments, **named)
    bound.apply_defaults()
    for name in mutable:
        if name not in bound.arguments:
            raise ValueError(f"mutable names {name!r}, the kernel has {', '.join(bound.arguments)}")
    place = Place(function.__code__.co_filename, function.__code__.co_firstlineno)
    for name, value in bound.arguments.items():
        if isinstance(value, list):
            refuse("language", f"the argument {name!r} is a list: give a tuple", place)
    tensors = {
        name: _argument(value, name, name in mutable) if _is_array(value) else value
        for name, value in bound.arguments.items()
    }
    for name, value in tensors.items():
        bound.arguments[name] = value
    returned = _called(function, bound)
    written = [
        t
        for t in tensors.values()
        if isinstance(t, Tensor) and t.storage.life.first is not None and t.storage.mutable
    ]
    outputs = returned if isinstance(returned, tuple) else (returned,)
    for one in outputs:
        _check_output(one, place)
    if len({id(one.storage) for one in outputs}) < len(outputs):
        refuse("output", "the kernel returns a tensor twice", place)
    for tensor in written:
        if not any(one.storage is tensor.storage for one in outputs):
            refuse("output", f"the argument {tensor.storage.name!r} is mutable and not returned", place)
    return returned


def _called(function: Callable[..., Any], bound: inspect.BoundArguments) -> Any:
    """
    Raises:
        Refused: an instruction was given arguments that not every SDK's has.
    """
    try:
        return function(*bound.args, **bound.kwargs)
    except TypeError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if "argument" not in str(error) or of_simulator(last.filename):
            raise
        raise Refused(RULES["subset"], str(error), Place(last.filename, last.lineno or 0)) from error


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_torch(value)


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "numpy")


def _argument(value: Any, name: str, mutable: bool) -> Tensor:
    raw, dtype = _raw(value)
    storage = current().own(Storage(raw.shape, dtype, MemoryRegion.shared_hbm, name))
    flat = np.ascontiguousarray(raw).reshape(-1)
    # Nothing writes into the others, which may be large.
    storage.data = flat.copy() if mutable else flat
    storage.written[:] = True
    storage.complete = not mutable
    storage.argument, storage.mutable = True, mutable
    return Tensor(storage, raw.shape, dense(raw.shape))


def _raw(value: Any) -> tuple[NDArray[Any], str]:
    """An argument as the simulator stores it, with its type."""
    if not _is_torch(value):
        dtype = dtypes.of_array(value)
        return value.astype(dtypes.stored(dtype), copy=False), dtype
    import torch

    value = value.detach().contiguous()
    if value.dtype == torch.bfloat16:
        return value.view(torch.uint16).numpy(), "bfloat16"
    array = value.numpy()
    return array, dtypes.of_array(array)


def _check_output(output: Any, place: Place) -> None:
    if not isinstance(output, Tensor):
        refuse("output", f"the kernel returns {output!r}", place)
    storage = output.storage
    if storage.buffer is not MemoryRegion.shared_hbm:
        refuse("output", f"the kernel returns {output}, allocated at {storage.life.place}", place)
    if storage.argument and not storage.mutable:
        refuse("output", f"the kernel returns its argument {storage.name!r}, which is not mutable", place)
    held = storage.written if storage.contested is None else storage.written | storage.contested
    missing = int((~held).sum())
    if missing:
        refuse("output", f"{missing} of {storage.data.size} elements of {output} were never written", place)


# -- results -----------------------------------------------------------------------------------------


def _given_back(returned: Any, arguments: Any, named: Any) -> Any:
    """numpy arrays, or torch tensors where an argument was one."""
    in_torch = any(_is_torch(value) for value in (*arguments, *named.values()))
    outputs = returned if isinstance(returned, tuple) else (returned,)
    arrays = tuple(_array(one, in_torch) for one in outputs)
    return arrays if isinstance(returned, tuple) else arrays[0]


def _array(output: Tensor, in_torch: bool) -> Any:
    raw = memory.window(output.storage.data, output)
    if not in_torch:
        return dtypes.to_float(raw, output.dtype) if output.dtype == "bfloat16" else raw
    import torch

    if output.dtype == "bfloat16":
        return torch.from_numpy(raw.copy()).view(torch.bfloat16)
    return torch.from_numpy(raw.copy())


def _compare_orders(run: Any, results: Any, machine: Machine, seed: int) -> None:
    """
    Raises:
        Refused: with some loop's iterations in another order the kernel fails or says something else.
    """
    complaint = _disagreement(run, results, reordered(seed))
    if complaint is None:
        return
    for place in sorted(machine.loops, key=lambda one: one.line):
        alone = _disagreement(run, results, reordered(seed, place))
        if alone is not None:
            refuse("affine-range", f"iterations of this loop in another order: {alone}", place)
    first = min(machine.loops, key=lambda one: one.line)
    refuse("affine-range", f"iterations of several loops in another order: {complaint}", first)


def _disagreement(run: Any, results: Any, order: Order) -> str | None:
    try:
        others, _ = run(order)
    except Refused as refused:
        return f"{refused.rule.name} at line {refused.place.line}: {refused.what}"
    ours = results if isinstance(results, tuple) else (results,)
    theirs = others if isinstance(others, tuple) else (others,)
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        far = _distance(one, other)
        if far:
            return f"output {number} differs by {far:.3g}"
    return None


def _distance(one: Tensor, other: Tensor) -> float:
    """How far two runs' outputs are apart beyond rounding; 0 where they agree."""
    left = dtypes.to_float(memory.window(one.storage.data, one), one.dtype).astype(np.float64)
    right = dtypes.to_float(memory.window(other.storage.data, other), other.dtype).astype(np.float64)
    settled = np.ones(one.shape, dtype=np.bool_)
    if one.storage.contested is not None:
        settled = ~memory.window(one.storage.contested, one)
    left, right = np.nan_to_num(left[settled]), np.nan_to_num(right[settled])
    if not left.size:
        return 0.0
    far = float(np.abs(left - right).max())
    allowed = _AGREEMENT.get(one.dtype, 0.0) * float(np.abs(left).max())
    return far if far > allowed else 0.0
