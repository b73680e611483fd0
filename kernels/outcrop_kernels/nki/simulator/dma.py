"""nisa.dma_copy: between HBM and SBUF, from and to addresses that are fixed or come from SBUF."""

from __future__ import annotations

from math import gcd, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import dtypes, memory
from outcrop_kernels.nki.simulator.enums import dge_mode as dge_modes
from outcrop_kernels.nki.simulator.enums import engine as engines
from outcrop_kernels.nki.simulator.enums import oob_mode as oob_modes
from outcrop_kernels.nki.simulator.machine import Machine, current
from outcrop_kernels.nki.simulator.memory import MemoryRegion, Tensor
from outcrop_kernels.nki.simulator.rules import refuse


def dma_copy(
    dst: Tensor,
    src: Tensor,
    oob_mode: oob_modes = oob_modes.error,
    dge_mode: dge_modes = dge_modes.unknown,
    name: str | None = None,
    **later: Any,
) -> None:
    """dst = src, as many elements, cast through float32 where the types differ.

    Either side may have an address from SBUF: `.ap(..., scalar_offset=[1, 1] tensor)` for one start, or
    `.ap(..., vector_offset=[P, 1] tensor)` for a row per partition (gather on src, scatter on dst).
    """
    machine = current()
    _arguments(later, dge_mode)
    for tensor, role in ((dst, "dst"), (src, "src")):
        if not isinstance(tensor, Tensor):
            refuse("language", f"{role} of dma_copy is {tensor!r}, not a tensor")
        if tensor.buffer is MemoryRegion.psum:
            refuse("psum-access", f"{role} of dma_copy is {tensor}")
    if dst.storage.argument and not dst.storage.mutable:
        refuse("hbm-write", f"dma_copy writes into the argument {dst.storage.name!r}")
    if dst.size != src.size:
        refuse("shape", f"dma_copy of {src.size} elements, {src}, into {dst.size}, {dst}")
    if dst.dynamic and src.dynamic:
        refuse("dynamic-address", "both sides of a dma_copy have a dynamic address")
    clock = machine.tick()
    if dst.dynamic or src.dynamic:
        _dynamic(machine, dst, src, oob_mode)
    else:
        if oob_mode is oob_modes.skip:
            refuse("dma-bounds", "oob_mode.skip without a dynamic address: there is nothing to skip")
        memory.write(dst, dtypes.cast(memory.read(src, clock), src.dtype, dst.dtype).copy(), clock)
    _count(machine, dst, src)


def _arguments(later: dict[str, Any], dge_mode: dge_modes) -> None:
    if dge_mode is dge_modes.hwdge:
        refuse("later-chip", "dma_copy with dge_mode.hwdge: leave it out, or use dge_mode.swdge")
    if later.get("engine", engines.unknown) is not engines.unknown:
        refuse("later-chip", "dma_copy(engine=...) belongs to dge_mode.hwdge")
    if later:
        refuse("subset", f"dma_copy({', '.join(later)}=...) is not in all of SDK 2.28 to 2.32")


# -- addresses from SBUF -----------------------------------------------------------------------------


def _dynamic(machine: Machine, dst: Tensor, src: Tensor, oob_mode: oob_modes) -> None:
    moving = dst if dst.dynamic else src
    if moving.storage.buffer is MemoryRegion.sbuf:
        refuse("dynamic-address", f"the dynamic side of a dma_copy is {moving}, not in HBM")
    if moving.dtype != moving.storage.dtype:
        refuse("view", f"{moving} has a dynamic address and another type than its tensor")
    starts = _starts(machine, moving)
    places = _addresses(moving, starts)
    inside = _inside(moving, starts, places, oob_mode)
    if moving is src:
        _gather(machine, dst, src, places, inside)
    else:
        _scatter(machine, dst, src, places, inside)
    rows = moving.shape[0] if moving.vector_offset is not None else 1
    machine.report.dma.dynamic += max(rows, _pieces(dst, src)[1])


def _starts(machine: Machine, view: Tensor) -> NDArray[np.int64]:
    """The indices: [P] for vector_offset, [1] for scalar_offset."""
    vector = view.vector_offset is not None
    index = view.vector_offset if vector else view.scalar_offset
    if vector and not machine.indirect_dma:
        refuse("indirect-dma", f"{view} is addressed by vector_offset")
    wanted = view.shape[0] if vector else 1
    if not isinstance(index, Tensor) or index.buffer is not MemoryRegion.sbuf:
        refuse("dma-index", f"the index is {index!r}, not a tensor in SBUF")
    if index.dtype not in {"int32", "uint32"}:
        refuse("dma-index", f"the index is {index}, neither int32 nor uint32")
    if index.shape[0] != wanted or index.free != 1:
        refuse("dma-index", f"the index is {index}, where [{wanted}, 1] is wanted")
    return memory.read(index, machine.clock).reshape(-1).astype(np.int64)


def _addresses(view: Tensor, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The flat element address of each element of the view. `indirect_dim` is a dimension of the tensor,
    whose stride scales the index; a vector's index takes the place of the pattern's first step."""
    step = prod(view.storage.shape[view.indirect_dim + 1 :])
    places: NDArray[np.int64] = np.zeros((), dtype=np.int64)
    for dim, (size, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        by_index = dim == 0 and view.vector_offset is not None
        along = starts * step if by_index else np.arange(size, dtype=np.int64) * stride
        places = places[..., None] + along
    base = 0 if view.vector_offset is not None else int(starts[0]) * step
    return places + view.offset + base


def _inside(
    view: Tensor, starts: NDArray[np.int64], places: NDArray[np.int64], oob_mode: oob_modes
) -> NDArray[np.bool_]:
    """Which rows of the view lie inside of its tensor: [rows]; a scalar index moves all or nothing."""
    rows = places.reshape(view.shape[0], -1)
    inside: NDArray[np.bool_] = np.logical_and.reduce((rows >= 0) & (rows < view.storage.data.size), axis=1)
    if view.scalar_offset is not None:
        inside[:] = inside.all()
    if not inside.all() and oob_mode is oob_modes.error:
        wrong = starts[~inside] if view.vector_offset is not None else starts
        refuse(
            "dma-bounds",
            f"index {int(wrong[0])} of dimension {view.indirect_dim} leaves {view.storage.shape}",
        )
    return inside


def _gather(
    machine: Machine, dst: Tensor, src: Tensor, places: NDArray[np.int64], inside: NDArray[np.bool_]
) -> None:
    storage = src.storage
    storage.touch(machine.clock)
    wanted = places[inside]
    if not storage.written[wanted].all():
        memory.refuse_unwritten(src, int((~storage.written[wanted]).sum()))
    moved = dtypes.cast(storage.data[wanted], src.dtype, dst.dtype)
    if inside.all():
        memory.write(dst, moved, machine.clock)
        return
    if dst.shape[0] != src.shape[0]:
        refuse("shape", f"a gather that skips rows goes into {dst}, not into [{src.shape[0]}, ...]")
    _write_rows(machine, dst, moved, inside)


def _write_rows(machine: Machine, dst: Tensor, moved: NDArray[Any], inside: NDArray[np.bool_]) -> None:
    storage = dst.storage
    if dst.dtype != storage.dtype:
        refuse("view", f"{dst} is written as {dst.dtype}, it was allocated as {storage.dtype}")
    storage.touch(machine.clock)
    memory.window(storage.data, dst)[inside] = moved.reshape(-1, *dst.shape[1:])
    memory.window(storage.written, dst)[inside] = True


def _scatter(
    machine: Machine, dst: Tensor, src: Tensor, places: NDArray[np.int64], inside: NDArray[np.bool_]
) -> None:
    storage = dst.storage
    storage.touch(machine.clock)
    values = dtypes.cast(memory.read(src, machine.clock), src.dtype, dst.dtype).reshape(places.shape)
    flat, kept = places[inside].reshape(-1), values[inside].reshape(-1)
    storage.data[flat] = kept
    storage.written[flat] = True
    addresses, count = np.unique(flat, return_counts=True)
    if storage.contested is None:
        if (count > 1).any():
            storage.contested = np.zeros(storage.data.size, dtype=np.bool_)
        else:
            return
    storage.contested[addresses] = count > 1
    storage.written[addresses[count > 1]] = False


# -- counting ----------------------------------------------------------------------------------------


def _run(tensor: Tensor) -> int:
    """Contiguous elements at a stretch: partitions of SBUF are apart."""
    dims = list(zip(tensor.shape, tensor.strides, strict=True))
    if tensor.on_chip or tensor.vector_offset is not None:
        dims = dims[1:]
    run = 1
    for size, stride in reversed(dims):
        if size == 1:
            continue
        if stride != run:
            break
        run *= size
    return run


def _pieces(dst: Tensor, src: Tensor) -> tuple[int, int]:
    """(elements per descriptor, descriptors): a descriptor is contiguous on both sides."""
    run = gcd(_run(dst), _run(src))
    return run, dst.size // run


def _count(machine: Machine, dst: Tensor, src: Tensor) -> None:
    done = machine.report.dma
    run, pieces = _pieces(dst, src)
    done.transfers += 1
    done.descriptors[run * max(dtypes.width(src.dtype), dtypes.width(dst.dtype))] += pieces
    read, written = src.size * dtypes.width(src.dtype), dst.size * dtypes.width(dst.dtype)
    if not src.on_chip:
        done.hbm_read += read
    if not dst.on_chip:
        done.hbm_written += written
    if src.on_chip and dst.on_chip:
        done.on_chip += written
