"""Instructions of the vector engine that look for the eight largest, and for where they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import checks, dtypes, memory, values
from outcrop_kernels.nki.simulator.machine import current, instruction
from outcrop_kernels.nki.simulator.memory import Tensor
from outcrop_kernels.nki.simulator.rules import refuse

_EIGHT = 8
_WIDEST = 16384


def _searched(instruction: str, data: Tensor) -> None:
    checks.operand(data, "data")
    if not _EIGHT <= data.free <= _WIDEST:
        refuse(
            "size", f"{instruction} of {data}: {data.free} elements per partition, where 8 to 16384 are taken"
        )


def _eight(instruction: str, tensor: Tensor, data: Tensor, role: str) -> None:
    checks.operand(tensor, role)
    if tensor.shape[0] != data.shape[0] or tensor.free != _EIGHT:
        refuse("shape", f"{role} of {instruction} is {tensor}, where [{data.shape[0]}, 8] is wanted")


@instruction
def max8(dst: Tensor, src: Tensor, name: str | None = None) -> None:
    """dst [P, 8] = the eight largest of each partition, largest first."""
    machine = current()
    _searched("max8", src)
    _eight("max8", dst, src, "dst")
    clock = machine.tick()
    ordered = -np.sort(-values.floats(src, clock), axis=1)
    values.store(machine, dst, ordered[:, :_EIGHT])
    machine.work("vector", src.free, src.free)


@instruction
def nc_find_index8(dst: Tensor, data: Tensor, vals: Tensor, name: str | None = None) -> None:
    """dst [P, 8] = where each of vals [P, 8] is in its partition of data. Equal values take successive
    places, in the order of vals; a value that is not there gives all ones."""
    machine = current()
    _searched("nc_find_index8", data)
    _eight("nc_find_index8", vals, data, "vals")
    _eight("nc_find_index8", dst, data, "dst")
    checks.types("nc_find_index8", dst, "dst", ("uint16", "uint32"))
    clock = machine.tick()
    places = _places(values.floats(data, clock), values.floats(vals, clock), range(_EIGHT))
    missing = np.iinfo(dtypes.stored(dst.dtype)).max
    memory.write(dst, np.where(places < 0, missing, places).astype(dtypes.stored(dst.dtype)), clock)
    machine.work("vector", data.free, data.free)


@instruction
def nc_match_replace8(
    dst: Tensor,
    data: Tensor,
    vals: Tensor,
    imm: float,
    dst_idx: Tensor | None = None,
    name: str | None = None,
) -> None:
    """dst = data with the first place of each of vals [P, 8] set to imm; dst_idx [P, 8] receives the
    places."""
    machine = current()
    _searched("nc_match_replace8", data)
    _eight("nc_match_replace8", vals, data, "vals")
    checks.operand(dst, "dst")
    checks.same_shape("nc_match_replace8", dst, data)
    clock = machine.tick()
    inputs = values.floats(data, clock).copy()
    places = _places(inputs, values.floats(vals, clock), range(_EIGHT - 1, -1, -1))
    rows = np.arange(data.shape[0])
    for column in range(_EIGHT):
        found = places[:, column] >= 0
        inputs[rows[found], places[found, column]] = imm
    values.store(machine, dst, inputs)
    if dst_idx is not None:
        _eight("nc_match_replace8", dst_idx, data, "dst_idx")
        checks.types("nc_match_replace8", dst_idx, "dst_idx", ("uint16", "uint32"))
        missing = np.iinfo(dtypes.stored(dst_idx.dtype)).max
        found_at = np.where(places < 0, missing, places).astype(dtypes.stored(dst_idx.dtype))
        memory.write(dst_idx, found_at, clock)
    machine.work("vector", data.free, data.free)


def _places(data: NDArray[np.float32], wanted: NDArray[np.float32], order: range) -> NDArray[np.int64]:
    """Where each wanted value is, -1 where it is not; equal ones, taken in `order`, get successive places."""
    places = np.full(wanted.shape, -1, dtype=np.int64)
    taken = np.zeros(data.shape, dtype=np.bool_)
    rows = np.arange(data.shape[0])
    for column in order:
        hits = (data == wanted[:, column : column + 1]) & ~taken
        first = hits.argmax(axis=1)
        found = hits[rows, first]
        places[found, column] = first[found]
        taken[rows[found], first[found]] = True
    return places
