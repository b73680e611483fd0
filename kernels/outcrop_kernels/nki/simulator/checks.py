"""What every compute instruction asks of its operands."""

from __future__ import annotations

from typing import Any

from outcrop_kernels.nki.simulator import dtypes
from outcrop_kernels.nki.simulator.memory import PARTITIONS, MemoryRegion, Tensor
from outcrop_kernels.nki.simulator.rules import refuse

_MOST_FREE_DIMENSIONS = 4
_LARGEST_SIZE = (1 << 16) - 1
_LARGEST_STRIDE = (1 << 15) - 1


def operand(tensor: Any, role: str) -> Tensor:
    """`tensor` where a compute engine can address it.

    Raises:
        Refused: it cannot.
    """
    if not isinstance(tensor, Tensor):
        refuse("language", f"{role} is {tensor!r}, not a tensor")
    if not tensor.on_chip:
        refuse(
            "dynamic-address" if tensor.dynamic else "engine", f"{role} is {tensor}: load it into SBUF first"
        )
    if tensor.dynamic:
        refuse("dynamic-address", f"{role} is {tensor} at an address from another tensor")
    if tensor.shape[0] > PARTITIONS:
        refuse("partitions", f"{role} is {tensor}")
    start_partition(tensor, role)
    merged = _merged(tensor)
    if len(merged) > _MOST_FREE_DIMENSIONS:
        refuse("access-pattern", f"{role} is {tensor} with {len(merged)} free dimensions")
    for size, stride in merged:
        if size > _LARGEST_SIZE or (size > 1 and stride > _LARGEST_STRIDE):
            refuse(
                "access-pattern", f"{role} is {tensor}: {size} elements of stride {stride} in one dimension"
            )
    return tensor


def start_partition(tensor: Tensor, role: str) -> None:
    start, count = tensor.start_partition, tensor.shape[0]
    allowed = (0,) if count > 64 else (0, 64) if count > 32 else (0, 32, 64, 96)
    if start not in allowed:
        refuse("start-partition", f"{role} is {tensor}, {count} partitions from partition {start} on")


def _merged(tensor: Tensor) -> list[tuple[int, int]]:
    """(size, stride) of the free dimensions, neighbours that are contiguous taken as one."""
    merged: list[tuple[int, int]] = []
    for size, stride in zip(tensor.shape[1:], tensor.strides[1:], strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride and merged[-1][0] * size <= _LARGEST_SIZE:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return merged


def same_shape(instruction: str, dst: Tensor, *sources: Tensor) -> None:
    for source in sources:
        if source.shape[0] != dst.shape[0] or source.free != dst.free:
            refuse(
                "shape",
                f"{instruction} into [{dst.shape[0]}, {dst.free}] has an operand of "
                f"[{source.shape[0]}, {source.free}] (partitions, elements per partition)",
            )


def per_partition(instruction: str, tensor: Tensor, data: Tensor, role: str) -> None:
    if tensor.shape[0] != data.shape[0] or tensor.free != 1:
        refuse("shape", f"{role} of {instruction} is {tensor}, where [{data.shape[0]}, 1] is wanted")


def memory(tensor: Tensor, region: MemoryRegion, rule: str, role: str) -> None:
    if tensor.buffer is not region:
        refuse(rule, f"{role} is {tensor}, not in {region.value.upper()}")


def not_both_in_psum(instruction: str, first: Tensor, second: Tensor) -> None:
    if first.buffer is MemoryRegion.psum and second.buffer is MemoryRegion.psum:
        refuse("psum-access", f"both operands of {instruction} are in PSUM: {first} and {second}")


def integers(instruction: str, *tensors: Tensor) -> None:
    for tensor in tensors:
        if not dtypes.is_integer(tensor.dtype):
            refuse("dtype", f"{instruction} works on bits, {tensor} is not of an integer type")


def types(instruction: str, tensor: Tensor, role: str, allowed: tuple[str, ...] | frozenset[str]) -> None:
    if tensor.dtype not in allowed:
        refuse(
            "dtype", f"{role} of {instruction} is {tensor}, where {' or '.join(sorted(allowed))} is wanted"
        )
