"""Instructions of the tensor engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from outcrop_kernels.nki.simulator import checks, dtypes, memory, values
from outcrop_kernels.nki.simulator.enums import engine as engines
from outcrop_kernels.nki.simulator.enums import matmul_perf_mode
from outcrop_kernels.nki.simulator.machine import Machine, current, instruction
from outcrop_kernels.nki.simulator.memory import MemoryRegion, Tensor
from outcrop_kernels.nki.simulator.rules import refuse

_ROWS, _COLUMNS, _MOVING = 128, 128, 512
_SMALL_TRANSPOSE = 32
_FP32_PASSES = 4
_COLUMNS_HIDDEN = 64
"""Costs as of nki.isa in the docs of SDK 2.23: max(min(64, columns of stationary), columns of moving)
cycles, four times that for float32."""


@instruction
def nc_matmul(
    dst: Tensor,
    stationary: Tensor,
    moving: Tensor,
    is_stationary_onezero: bool = False,
    is_moving_onezero: bool = False,
    is_transpose: bool = False,
    tile_position: tuple[int, ...] = (),
    tile_size: tuple[int, ...] = (),
    perf_mode: matmul_perf_mode = matmul_perf_mode.none,
    name: str | None = None,
    **later: Any,
) -> None:
    """dst[M, N] (PSUM, float32) = or += stationary[K, M].T @ moving[K, N].

    The first matmul into a freshly allocated tile overwrites, further ones add.
    """
    if "accumulate" in later:
        refuse(
            "subset",
            "nc_matmul(accumulate=...) came with SDK 2.29: the first matmul into a fresh tile overwrites",
        )
    if later:
        refuse("subset", f"nc_matmul has no {', '.join(later)}")
    if perf_mode is not matmul_perf_mode.none:
        refuse("later-chip", f"nc_matmul with {perf_mode}: leave perf_mode out")
    machine = current()
    _matmul_operands(dst, stationary, moving)
    _tiling(stationary, moving, tile_position, tile_size)
    (k, m), n = (stationary.shape[0], stationary.free), moving.free
    clock = machine.tick()
    left, right = values.floats(stationary, clock), values.floats(moving, clock)
    product = np.matmul(left.T, right)
    if memory.accumulates(dst):
        product = product + memory.window(dst.storage.data, dst).reshape(m, n)
    memory.write(dst, product.astype(np.float32, copy=False), clock, by_matmul=True)
    machine.work("tensor", n, max(n, min(_COLUMNS_HIDDEN, m)) * _passes(stationary))
    if not is_transpose:
        machine.report.macs += k * m * n


def _matmul_operands(dst: Tensor, stationary: Tensor, moving: Tensor) -> None:
    for tensor, role in ((stationary, "stationary"), (moving, "moving"), (dst, "dst")):
        if not isinstance(tensor, Tensor):
            refuse("language", f"{role} is {tensor!r}, not a tensor")
        region = MemoryRegion.psum if role == "dst" else MemoryRegion.sbuf
        checks.memory(tensor, region, "matmul-memory", role)
        checks.operand(tensor, role)
    if stationary.shape[0] != moving.shape[0]:
        refuse("matmul-shape", f"stationary {stationary} and moving {moving} differ in partitions (K)")
    if stationary.free > _COLUMNS:
        refuse("matmul-shape", f"stationary {stationary} has {stationary.free} columns")
    if moving.free > _MOVING:
        refuse("matmul-shape", f"moving {moving} has {moving.free} columns")
    if dst.shape[0] != stationary.free or dst.free != moving.free:
        refuse("matmul-shape", f"dst is {dst}, where [{stationary.free}, {moving.free}] is wanted")
    for tensor, role in ((stationary, "stationary"), (moving, "moving")):
        if dtypes.is_integer(tensor.dtype):
            refuse("matmul-dtype", f"{role} is {tensor}")
    if (stationary.dtype in dtypes.FP32_LIKE) != (moving.dtype in dtypes.FP32_LIKE):
        refuse("matmul-dtype", f"stationary {stationary} goes with moving {moving}")
    if dst.dtype != "float32":
        refuse("matmul-dtype", f"dst is {dst}")


def _tiling(stationary: Tensor, moving: Tensor, position: tuple[int, ...], size: tuple[int, ...]) -> None:
    """A row of the array belongs to a partition: operands lie where their rows are."""
    row, rows = 0, _ROWS
    if position or size:
        if tuple(size) not in {(64, 128), (128, 128)} or tuple(position) not in {(0, 0), (64, 0)}:
            refuse(
                "later-chip",
                f"tile_position={position}, tile_size={size}: NeuronCore-v2 has two tiles of 64 rows, "
                "tile_position=(0, 0) or (64, 0) with tile_size=(64, 128)",
            )
        row, rows = position[0], size[0]
    if stationary.shape[0] > rows or row + rows > _ROWS:
        refuse("matmul-shape", f"stationary {stationary} does not fit in {rows} rows from row {row} on")
    for tensor, role in ((stationary, "stationary"), (moving, "moving")):
        if tensor.start_partition != row:
            refuse(
                "start-partition",
                f"{role} {tensor} starts at partition {tensor.start_partition}, the array's rows at {row}: "
                "tile_position=(64, 0), tile_size=(64, 128) takes operands from partition 64 on",
            )


@instruction
def nc_transpose(
    dst: Tensor, data: Tensor, engine: engines = engines.unknown, name: str | None = None
) -> None:
    """dst[F, P] = data[P, F], of one type. The tensor engine writes PSUM and takes up to [128, 128], the
    vector engine any on-chip memory and up to [32, 32]."""
    machine = current()
    checks.operand(data, "data")
    checks.operand(dst, "dst")
    partitions, free = data.shape[0], data.free
    if dst.shape[0] != free or dst.free != partitions:
        refuse("shape", f"nc_transpose of [{partitions}, {free}] into {dst}")
    if dst.dtype != data.dtype:
        refuse("dtype", f"nc_transpose of {data} into {dst}: both are of one type")
    if engine is engines.unknown:
        small = max(partitions, free) <= _SMALL_TRANSPOSE
        engine = engines.vector if small and dst.buffer is MemoryRegion.sbuf else engines.tensor
    if engine is engines.vector:
        _vector_transpose(machine, dst, data)
        return
    if engine is not engines.tensor:
        refuse("engine", f"nc_transpose on {engine}: the tensor and the vector engine do it")
    checks.memory(data, MemoryRegion.sbuf, "matmul-memory", "data")
    checks.memory(dst, MemoryRegion.psum, "matmul-memory", "dst")
    if free > _COLUMNS:
        refuse("matmul-shape", f"nc_transpose of {data} with {free} columns")
    if dtypes.is_integer(data.dtype):
        refuse("matmul-dtype", f"nc_transpose of {data} on the tensor engine")
    clock = machine.tick()
    raw = values.bits(data, clock)
    if not np.isfinite(dtypes.to_float(raw, data.dtype)).all():
        refuse("transpose-finite", f"{data} holds an infinity or NaN")
    memory.write(dst, raw.T, clock)
    machine.work("tensor", partitions, max(partitions, min(_COLUMNS_HIDDEN, free)) * _passes(data))


def _passes(data: Tensor) -> int:
    return _FP32_PASSES if data.dtype == "float32" else 1


def _vector_transpose(machine: Machine, dst: Tensor, data: Tensor) -> None:
    if max(data.shape[0], data.free) > _SMALL_TRANSPOSE:
        refuse("size", f"nc_transpose of {data} on the vector engine, which takes [32, 32]")
    clock = machine.tick()
    memory.write(dst, values.bits(data, clock).T, clock)
    machine.work("vector", data.free, data.free)
