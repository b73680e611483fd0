"""nisa.dma_copy: between HBM and SBUF, from and to addresses that are fixed or come from SBUF."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import dtypes, memory
from outcrop_kernels.nki.simulator.enums import dge_mode as dge_modes
from outcrop_kernels.nki.simulator.enums import engine as engines
from outcrop_kernels.nki.simulator.enums import oob_mode as oob_modes
from outcrop_kernels.nki.simulator.machine import Machine, current, instruction
from outcrop_kernels.nki.simulator.memory import MemoryRegion, Tensor
from outcrop_kernels.nki.simulator.rules import refuse
from outcrop_kernels.nki.simulator.schedule import dma_seconds


@instruction
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
    inside = (starts >= 0) & (starts < len(_rows(moving.storage.written, moving)))
    if not inside.all() and oob_mode is oob_modes.error:
        wrong = int(starts[~inside][0])
        refuse("dma-bounds", f"index {wrong} in steps of {moving.index_step} elements leaves {moving}")
    if moving is src:
        _gather(machine, dst, src, starts, inside)
    else:
        _scatter(machine, dst, src, starts, inside)
    machine.report.dma.dynamic += max(len(starts), _pieces(dst, src)[1])


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


def _rows(flat: NDArray[Any], view: Tensor) -> NDArray[Any]:
    """[indices, ...]: what each index that stays inside of `flat` selects, without a copy."""
    first = 1 if view.vector_offset is not None else 0
    shape, strides = view.shape[first:], view.strides[first:]
    extent = sum(stride * (size - 1) for size, stride in zip(shape, strides, strict=True))
    count = (flat.size - 1 - extent - view.offset) // view.index_step + 1
    width = flat.itemsize
    return np.ndarray(
        (max(0, count), *shape),
        dtype=flat.dtype,
        buffer=flat,
        offset=view.offset * width if count > 0 else 0,
        strides=tuple(stride * width for stride in (view.index_step, *strides)),
    )


def _gather(
    machine: Machine, dst: Tensor, src: Tensor, starts: NDArray[np.int64], inside: NDArray[np.bool_]
) -> None:
    storage = src.storage
    storage.touch(machine.clock, wrote=False)
    wanted = starts[inside]
    if not storage.complete:
        written = _rows(storage.written, src)[wanted]
        if not written.all():
            memory.refuse_unwritten(src, int((~written).sum()))
    moved = dtypes.cast(_rows(storage.data, src)[wanted], src.dtype, dst.dtype)
    if inside.all():
        memory.write(dst, moved, machine.clock)
    elif inside.any():
        _write_rows(machine, dst, moved, inside)


def _write_rows(machine: Machine, dst: Tensor, moved: NDArray[Any], inside: NDArray[np.bool_]) -> None:
    """A gather that skips leaves the rows of those indices as they were."""
    storage = dst.storage
    if dst.shape[0] != len(inside):
        refuse("shape", f"a gather that skips rows goes into {dst}, not into [{len(inside)}, ...]")
    if dst.dtype != storage.dtype:
        refuse("view", f"{dst} is written as {dst.dtype}, it was allocated as {storage.dtype}")
    storage.touch(machine.clock, wrote=True)
    memory.window(storage.data, dst)[inside] = moved.reshape(-1, *dst.shape[1:])
    memory.window(storage.written, dst)[inside] = True


def _scatter(
    machine: Machine, dst: Tensor, src: Tensor, starts: NDArray[np.int64], inside: NDArray[np.bool_]
) -> None:
    """Of rows with one index, any may win: what they leave may be returned, but not read."""
    storage = dst.storage
    storage.touch(machine.clock, wrote=True)
    values = dtypes.cast(memory.read(src, machine.clock), src.dtype, dst.dtype)
    data, written = _rows(storage.data, dst), _rows(storage.written, dst)
    data[starts[inside]] = values.reshape(len(starts), *data.shape[1:])[inside]
    written[starts[inside]] = True
    once, count = np.unique(starts[inside], return_counts=True)
    repeated = once[count > 1]
    if storage.contested is None and repeated.size:
        storage.contested = np.zeros(storage.data.size, dtype=np.bool_)
    if storage.contested is not None:
        _rows(storage.contested, dst)[once] = False
        _rows(storage.contested, dst)[repeated] = True
        written[repeated] = False


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
    size = run * max(dtypes.width(src.dtype), dtypes.width(dst.dtype))
    done.transfers += 1
    done.descriptors[size] += pieces
    machine.spent.append(("load" if dst.on_chip else "store", dma_seconds(size, pieces)))
    read, written = src.size * dtypes.width(src.dtype), dst.size * dtypes.width(dst.dtype)
    if not src.on_chip:
        done.hbm_read += read
    if not dst.on_chip:
        done.hbm_written += written
    if src.on_chip and dst.on_chip:
        done.on_chip += written
