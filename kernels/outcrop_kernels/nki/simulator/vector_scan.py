"""Instructions of the vector engine that go along a partition: scans, statistics, shuffles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator import checks, memory, values
from outcrop_kernels.nki.simulator.machine import current, instruction
from outcrop_kernels.nki.simulator.memory import Tensor
from outcrop_kernels.nki.simulator.ops import Op, checked
from outcrop_kernels.nki.simulator.rules import refuse

_STATISTICS_WIDTH = 512
_QUADRANT = 32
_KEEP = 255


@instruction
def tensor_tensor_scan(
    dst: Tensor,
    data0: Tensor,
    data1: Tensor,
    initial: float | Tensor,
    op0: Op,
    op1: Op,
    reverse0: bool = False,
    reverse1: bool = False,
    name: str | None = None,
) -> None:
    """dst[:, i] = (data0[:, i] <op0> dst[:, i - 1]) <op1> data1[:, i] in float32, from `initial` on."""
    machine = current()
    for tensor, role in ((data0, "data0"), (data1, "data1"), (dst, "dst")):
        checks.operand(tensor, role)
    checks.same_shape("tensor_tensor_scan", dst, data0, data1)
    checks.not_both_in_psum("tensor_tensor_scan", data0, data1)
    first = checked(op0, "binary", "nisa.tensor_tensor_scan")
    second = checked(op1, "binary", "nisa.tensor_tensor_scan")
    if first.bits or second.bits:
        refuse("op", "tensor_tensor_scan takes arithmetic operators only")
    assert first.binary is not None
    assert second.binary is not None
    clock = machine.tick()
    left, right = values.floats(data0, clock), values.floats(data1, clock)
    state = values.scalar_operand("tensor_tensor_scan", initial, data0, clock, "initial")
    state = np.broadcast_to(state, (dst.shape[0], 1))[:, 0]
    results = np.empty(left.shape, dtype=np.float32)
    for column in range(dst.free):
        state = _one_way_or_the_other(first, left[:, column], state, reverse0)
        state = _one_way_or_the_other(second, state, right[:, column], reverse1)
        results[:, column] = state
    values.store(machine, dst, results)
    machine.work("vector", dst.free, 2 * dst.free)


def _one_way_or_the_other(
    op: Op, left: NDArray[np.float32], right: NDArray[np.float32], reverse: bool
) -> NDArray[np.float32]:
    assert op.binary is not None
    return op.binary(right, left) if reverse else op.binary(left, right)


@instruction
def bn_stats(dst: Tensor, data: Tensor, name: str | None = None) -> None:
    """dst [P, 6] = count, mean and count * variance of the even elements, then of the odd ones."""
    machine = current()
    checks.operand(data, "data")
    checks.operand(dst, "dst")
    if data.free > _STATISTICS_WIDTH:
        refuse("size", f"bn_stats of {data}: {data.free} elements per partition, where 512 are taken")
    if dst.shape[0] != data.shape[0] or dst.free != 6:
        refuse("shape", f"bn_stats into {dst}, where [{data.shape[0]}, 6] is wanted")
    clock = machine.tick()
    inputs = values.floats(data, clock)
    columns = []
    for start in (0, 1):
        half = inputs[:, start::2]
        count = half.shape[1]
        mean = half.mean(axis=1) if count else np.zeros(len(half), dtype=np.float32)
        spread = ((half - mean[:, None]) ** 2).sum(axis=1)
        columns += [np.full(len(half), count, dtype=np.float32), mean, spread]
    values.store(machine, dst, np.stack(columns, axis=1))
    machine.work("vector", data.free, data.free)


@instruction
def bn_aggr(dst: Tensor, data: Tensor, name: str | None = None) -> None:
    """dst [P, 2] = mean and variance of what bn_stats counted; data [P, 6 * n] or any triples of it."""
    machine = current()
    checks.operand(data, "data")
    checks.operand(dst, "dst")
    if data.free % 3 or dst.shape[0] != data.shape[0] or dst.free != 2:
        refuse("shape", f"bn_aggr of {data} into {dst}: triples go into [{data.shape[0]}, 2]")
    clock = machine.tick()
    triples = values.floats(data, clock).reshape(data.shape[0], -1, 3)
    count, mean, spread = triples[..., 0], triples[..., 1], triples[..., 2]
    total = count.sum(axis=1)
    overall = (count * mean).sum(axis=1) / total
    variance = (spread + count * (mean - overall[:, None]) ** 2).sum(axis=1) / total
    values.store(machine, dst, np.stack([overall, variance], axis=1))
    machine.work("vector", data.free, 13 * data.free // 3)


@instruction
def nc_stream_shuffle(dst: Tensor, src: Tensor, shuffle_mask: Sequence[int], name: str | None = None) -> None:
    """In each quadrant of 32 partitions, dst[i] = src[shuffle_mask[i]]; 255 leaves dst[i] as it is."""
    machine = current()
    checks.operand(src, "src")
    checks.operand(dst, "dst")
    checks.types("nc_stream_shuffle", dst, "dst", (src.dtype,))
    if dst.free != src.free:
        refuse("shape", f"nc_stream_shuffle of {src} into {dst}")
    if len(shuffle_mask) != _QUADRANT or any(
        lane != _KEEP and not 0 <= lane < _QUADRANT for lane in shuffle_mask
    ):
        refuse("size", f"shuffle_mask has {len(shuffle_mask)} lanes, where 32 of 0 to 31 or 255 are wanted")
    clock = machine.tick()
    given = values.bits(src, clock).copy()
    for lane in range(dst.shape[0]):
        wanted = shuffle_mask[lane % _QUADRANT]
        if wanted == _KEEP:
            continue
        source = lane // _QUADRANT * _QUADRANT + wanted
        if source >= src.shape[0]:
            refuse("partitions", f"nc_stream_shuffle takes partition {source} of {src}")
        memory.write(dst[lane : lane + 1], given[source : source + 1], clock)
    machine.work("vector", dst.free, dst.free)
