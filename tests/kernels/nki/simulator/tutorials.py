"""The algorithms of AWS's NKI tutorials, written anew in the common subset, with plain torch beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tests.kernels.nki.simulator import sequence_tutorials as sequences
from torch import Tensor

from outcrop_kernels.nki.language import nisa, nki, nl


@nki.jit
def add(a, b):
    rows, width = a.shape
    out = nl.ndarray((rows, width), dtype=a.dtype, buffer=nl.shared_hbm)
    for row in nl.affine_range(rows // 128):
        for column in nl.affine_range(width // 512):
            here = a[row * 128 : (row + 1) * 128, nl.ds(column * 512, 512)]
            left = nl.ndarray((128, 512), dtype=a.dtype, buffer=nl.sbuf)
            right = nl.ndarray((128, 512), dtype=b.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=left, src=here)
            nisa.dma_copy(dst=right, src=b[row * 128 : (row + 1) * 128, nl.ds(column * 512, 512)])
            nisa.tensor_tensor(dst=left, data1=left, data2=right, op=nl.add)
            nisa.dma_copy(dst=out[row * 128 : (row + 1) * 128, nl.ds(column * 512, 512)], src=left)
    return out


@nki.jit
def add_by_program(a, b):
    """Rows shared among the programs of a launch, of which NeuronCore-v2 has one."""
    rows, width = a.shape
    mine = rows // nl.num_programs(0)
    here = nl.ds(nl.program_id(0) * mine, mine)
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    left = nl.ndarray((mine, width), dtype=a.dtype, buffer=nl.sbuf)
    right = nl.ndarray((mine, width), dtype=b.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=left, src=a[here, :])
    nisa.dma_copy(dst=right, src=b[here, :])
    nisa.tensor_tensor(dst=left, data1=left, data2=right, op=nl.add)
    nisa.dma_copy(dst=out[here, :], src=left)
    return out


@nki.jit
def columns(index, data):
    """Columns of data [P, W] by index int32 [1, N], which comes onto all partitions by DMA -> [P, N]."""
    rows, _ = data.shape
    _, count = index.shape
    out = nl.ndarray((rows, count), dtype=data.dtype, buffer=nl.shared_hbm)
    given = nl.ndarray(data.shape, dtype=data.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=given, src=data)
    wanted = nl.ndarray((rows, count), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=wanted, src=index.ap(pattern=[[0, rows], [1, count]], offset=0))
    places = nl.ndarray((rows, count), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=places, src=wanted)
    picked = nl.ndarray((rows, count), dtype=data.dtype, buffer=nl.sbuf)
    nisa.nc_n_gather(dst=picked, data=given, indices=places)
    nisa.dma_copy(dst=out, src=picked)
    return out


@nki.jit
def transpose2d(x, shape):
    """Each row of x is a matrix of `shape`; the result's rows are those matrices transposed."""
    rows, _ = x.shape
    high, wide = shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    given = nl.ndarray((rows, high * wide), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=given, src=x)
    turned = nl.ndarray((rows, wide, high), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(
        dst=turned, src=given.ap(pattern=[[high * wide, rows], [1, wide], [wide, high]], offset=0)
    )
    nisa.dma_copy(dst=out, src=turned)
    return out


@nki.jit
def matmul_tiled(left, right):
    """left [K, M], right [K, N] -> left.T @ right."""
    depth, rows = left.shape
    _, columns = right.shape
    out = nl.ndarray((rows, columns), dtype=left.dtype, buffer=nl.shared_hbm)
    for m in nl.affine_range(rows // 128):
        for n in nl.affine_range(columns // 512):
            total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
            for k in nl.affine_range(depth // 128):
                stationary = nl.ndarray((128, 128), dtype=left.dtype, buffer=nl.sbuf)
                moving = nl.ndarray((128, 512), dtype=right.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=stationary, src=left[nl.ds(k * 128, 128), nl.ds(m * 128, 128)])
                nisa.dma_copy(dst=moving, src=right[nl.ds(k * 128, 128), nl.ds(n * 512, 512)])
                nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)
            rounded = nl.ndarray((128, 512), dtype=left.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=rounded, src=total)
            nisa.dma_copy(dst=out[nl.ds(m * 128, 128), nl.ds(n * 512, 512)], src=rounded)
    return out


@nki.jit
def matmul_blocked(left, right):
    """The same with the right side loaded once, and each piece of the left once."""
    depth, rows = left.shape
    _, columns = right.shape
    steps = depth // 128
    out = nl.ndarray((rows, columns), dtype=left.dtype, buffer=nl.shared_hbm)
    whole = nl.ndarray((128, steps, columns), dtype=right.dtype, buffer=nl.sbuf)
    for k in nl.affine_range(steps):
        nisa.dma_copy(dst=whole[:, k, :], src=right[nl.ds(k * 128, 128), :])
    for m in nl.affine_range(rows // 128):
        piece = nl.ndarray((128, steps, 128), dtype=left.dtype, buffer=nl.sbuf)
        for k in nl.affine_range(steps):
            nisa.dma_copy(dst=piece[:, k, :], src=left[nl.ds(k * 128, 128), nl.ds(m * 128, 128)])
        result = nl.ndarray((128, columns), dtype=left.dtype, buffer=nl.sbuf)
        for n in nl.affine_range(columns // 512):
            total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
            for k in nl.sequential_range(steps):
                nisa.nc_matmul(dst=total, stationary=piece[:, k, :], moving=whole[:, k, nl.ds(n * 512, 512)])
            nisa.activation(dst=result[:, nl.ds(n * 512, 512)], op=nl.copy, data=total)
        nisa.dma_copy(dst=out[nl.ds(m * 128, 128), :], src=result)
    return out


@nki.jit
def matmul_hoisted(left, right):
    """The same with the tiles of a row of the result loaded before they are used, and kept in lists."""
    depth, rows = left.shape
    _, columns = right.shape
    out = nl.ndarray((rows, columns), dtype=left.dtype, buffer=nl.shared_hbm)
    moving = []
    for k in nl.affine_range(depth // 128):
        tile = nl.ndarray((128, columns), dtype=right.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=right[nl.ds(k * 128, 128), :])
        moving.append(tile)
    for m in nl.affine_range(rows // 128):
        stationary = []
        for k in nl.affine_range(depth // 128):
            tile = nl.ndarray((128, 128), dtype=left.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=left[nl.ds(k * 128, 128), nl.ds(m * 128, 128)])
            stationary.append(tile)
        for n in nl.affine_range(columns // 512):
            total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
            for k in nl.affine_range(depth // 128):
                part = moving[k][:, nl.ds(n * 512, 512)]
                nisa.nc_matmul(dst=total, stationary=stationary[k], moving=part)
            rounded = nl.ndarray((128, 512), dtype=left.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=rounded, src=total)
            nisa.dma_copy(dst=out[nl.ds(m * 128, 128), nl.ds(n * 512, 512)], src=rounded)
    return out


@nki.jit
def matmul_optimised(left, right):
    """The same in blocks of all three dimensions: sums over a piece of the depth are made in PSUM, and added
    up in SBUF."""
    depth, rows = left.shape
    _, columns = right.shape
    out = nl.ndarray((rows, columns), dtype=left.dtype, buffer=nl.shared_hbm)
    for n in nl.affine_range(columns // 1024):
        sums = []
        for _ in nl.affine_range(rows // 256):
            total = nl.ndarray((128, 2, 1024), dtype=nl.float32, buffer=nl.sbuf)
            nisa.memset(total, value=0.0)
            sums.append(total)
        for k in nl.sequential_range(depth // 128):
            moving = nl.ndarray((128, 1024), dtype=right.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=moving, src=right[nl.ds(k * 128, 128), nl.ds(n * 1024, 1024)])
            for m in nl.affine_range(rows // 256):
                stationary = nl.ndarray((128, 256), dtype=left.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=stationary, src=left[nl.ds(k * 128, 128), nl.ds(m * 256, 256)])
                for tile in nl.affine_range(2):
                    for half in nl.affine_range(2):
                        product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
                        nisa.nc_matmul(
                            dst=product,
                            stationary=stationary[:, nl.ds(tile * 128, 128)],
                            moving=moving[:, nl.ds(half * 512, 512)],
                        )
                        part = sums[m][:, tile, nl.ds(half * 512, 512)]
                        nisa.tensor_tensor(dst=part, data1=part, data2=product, op=nl.add)
        for m in nl.affine_range(rows // 256):
            for tile in nl.affine_range(2):
                rounded = nl.ndarray((128, 1024), dtype=left.dtype, buffer=nl.sbuf)
                nisa.tensor_copy(dst=rounded, src=sums[m][:, tile, :])
                nisa.dma_copy(dst=out[nl.ds(m * 256 + tile * 128, 128), nl.ds(n * 1024, 1024)], src=rounded)
    return out


@nki.jit
def average_pool(x, pool):
    """x [C, H, W] -> [C, H / pool, W / pool]."""
    channels, height, width = x.shape
    rows, columns = height // pool, width // pool
    out = nl.ndarray((channels, rows, columns), dtype=x.dtype, buffer=nl.shared_hbm)
    given = nl.ndarray((channels, height, width), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=given, src=x)
    windows = given.ap(
        pattern=[[height * width, channels], [pool * width, rows], [pool, columns], [width, pool], [1, pool]],
        offset=0,
    )
    total = nl.ndarray((channels, rows, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=total, op=nl.add, data=windows, axis=(3, 4))
    mean = nl.ndarray((channels, rows, columns), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=mean, data=total, op0=nl.multiply, operand0=1.0 / (pool * pool))
    nisa.dma_copy(dst=out, src=mean)
    return out


@nki.jit
def layer_norm(x, gain, shift, epsilon):
    """x [N, H], statistics of pieces of 512; gain and shift [1, H] come onto all partitions by DMA."""
    rows, width = x.shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    scale = nl.ndarray((128, width), dtype=nl.float32, buffer=nl.sbuf)
    bias = nl.ndarray((128, width), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=scale, src=gain.ap(pattern=[[0, 128], [1, width]], offset=0))
    nisa.dma_copy(dst=bias, src=shift.ap(pattern=[[0, 128], [1, width]], offset=0))
    small = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(small, value=epsilon)
    pieces = (width + 511) // 512
    for tile in nl.affine_range(rows // 128):
        given = nl.ndarray((128, width), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=given, src=x[nl.ds(tile * 128, 128), :])
        counted = nl.ndarray((128, 6 * pieces), dtype=nl.float32, buffer=nl.sbuf)
        for piece in nl.affine_range(pieces):
            size = min(512, width - piece * 512)
            nisa.bn_stats(dst=counted[:, nl.ds(piece * 6, 6)], data=given[:, nl.ds(piece * 512, size)])
        moments = nl.ndarray((128, 2), dtype=nl.float32, buffer=nl.sbuf)
        nisa.bn_aggr(dst=moments, data=counted)
        inverse = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=inverse, op=nl.rsqrt, data=moments[:, 1:2], bias=small)
        normal = nl.ndarray((128, width), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(
            dst=normal,
            data=given,
            op0=nl.subtract,
            operand0=moments[:, 0:1],
            op1=nl.multiply,
            operand1=inverse,
        )
        nisa.tensor_tensor(dst=normal, data1=normal, data2=scale, op=nl.multiply)
        result = nl.ndarray((128, width), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=result, data1=normal, data2=bias, op=nl.add)
        nisa.dma_copy(dst=out[nl.ds(tile * 128, 128), :], src=result)
    return out


@nki.jit
def rms_norm(x, gain, epsilon):
    """x [N <= 128, H]; gain [1, H] is spread over partitions by a matmul with ones."""
    rows, width = x.shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    given = nl.ndarray((rows, width), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=given, src=x)
    line = nl.ndarray((1, width), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=line, src=gain)
    ones = nl.ndarray((1, rows), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(ones, value=1.0)
    squares = nl.ndarray((rows, width), dtype=nl.float32, buffer=nl.sbuf)
    total = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation_reduce(dst=squares, op=nl.square, data=given, reduce_op=nl.add, reduce_res=total)
    nisa.tensor_scalar(
        dst=total, data=total, op0=nl.multiply, operand0=1.0 / width, op1=nl.add, operand1=epsilon
    )
    nisa.activation(dst=total, op=nl.rsqrt, data=total)
    result = nl.ndarray((rows, width), dtype=x.dtype, buffer=nl.sbuf)
    for start in range(0, width, 512):
        size = min(512, width - start)
        spread = nl.ndarray((rows, size), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=spread, stationary=ones, moving=line[:, nl.ds(start, size)])
        nisa.scalar_tensor_tensor(
            dst=result[:, nl.ds(start, size)],
            data=given[:, nl.ds(start, size)],
            op0=nl.multiply,
            operand0=total,
            op1=nl.multiply,
            operand1=spread,
        )
    nisa.dma_copy(dst=out, src=result)
    return out


@nki.jit
def softmax(x):
    rows, width = x.shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    given = nl.ndarray((rows, width), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=given, src=x)
    peak = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=peak, op=nl.maximum, data=given, axis=1, negate=True)
    powers = nl.ndarray((rows, width), dtype=nl.float32, buffer=nl.sbuf)
    total = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation_reduce(dst=powers, op=nl.exp, data=given, reduce_op=nl.add, reduce_res=total, bias=peak)
    nisa.reciprocal(dst=total, data=total)
    result = nl.ndarray((rows, width), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=result, data=powers, op0=nl.multiply, operand0=total)
    nisa.dma_copy(dst=out, src=result)
    return out


@dataclass(frozen=True)
class Case:
    kernel: Any
    arguments: tuple[Any, ...]
    expected: Tensor
    tolerance: float
    """Largest difference, of the largest expected value."""

    @property
    def name(self) -> str:
        return f"{self.kernel.__name__}-{str(self.arguments[0].dtype).removeprefix('torch.')}"


_HALF, _EXACT, _ROUNDED = torch.bfloat16, 2e-6, 2.0**-8


class _Dice:
    """Random numbers, the same in every run."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(dtype)


def _case(kernel: Any, plain: Callable[..., Tensor], *arguments: Any, tolerance: float) -> Case:
    return Case(kernel, arguments, plain(*arguments), tolerance)


def cases() -> list[Case]:
    dice = _Dice()
    return [*_elementwise(dice), *_products(dice), *_of_rows(dice), *_of_sequences(dice)]


def _elementwise(dice: _Dice) -> list[Case]:
    integers = torch.arange(5 * 12, dtype=torch.int32).reshape(5, 12).to(torch.int8)
    return [
        _case(add, torch.add, dice(256, 1024), dice(256, 1024), tolerance=0.0),
        _case(add, torch.add, dice(128, 512, dtype=_HALF), dice(128, 512, dtype=_HALF), tolerance=_ROUNDED),
        _case(
            transpose2d,
            lambda x, shape: x.reshape(-1, *shape).transpose(1, 2).reshape(x.shape),
            integers,
            (3, 4),
            tolerance=0.0,
        ),
    ]


def _products(dice: _Dice) -> list[Case]:
    return [
        *(
            _case(
                kernel,
                lambda a, b: a.double().T @ b.double(),
                dice(256, 256, dtype=dtype),
                dice(256, 1024, dtype=dtype),
                tolerance=tolerance,
            )
            for kernel in (matmul_tiled, matmul_blocked, matmul_hoisted, matmul_optimised)
            for dtype, tolerance in ((torch.float32, _EXACT), (_HALF, _ROUNDED))
        ),
    ]


def _of_rows(dice: _Dice) -> list[Case]:
    return [
        _case(
            average_pool,
            lambda x, pool: torch.nn.functional.avg_pool2d(x.double(), pool),
            dice(3, 12, 8),
            4,
            tolerance=_EXACT,
        ),
        _case(
            layer_norm,
            lambda x, g, s, e: torch.nn.functional.layer_norm(
                x.double(), x.shape[1:], g[0].double(), s[0].double(), e
            ),
            dice(256, 1280, dtype=_HALF),
            dice(1, 1280),
            dice(1, 1280),
            1e-5,
            tolerance=_ROUNDED,
        ),
        _case(
            rms_norm,
            lambda x, g, e: x.double() * (x.double().square().mean(1, keepdim=True) + e).rsqrt() * g.double(),
            dice(40, 700),
            dice(1, 700),
            1e-5,
            tolerance=_EXACT,
        ),
        _case(softmax, lambda x: x.double().softmax(dim=-1), 9 * dice(100, 333), tolerance=_EXACT),
        _case(add_by_program, torch.add, dice(128, 100), dice(128, 100), tolerance=0.0),
        _case(
            columns,
            lambda index, data: data[:, index[0].long()],
            torch.randint(0, 70, (1, 33), generator=dice.generator, dtype=torch.int32),
            dice(96, 70),
            tolerance=0.0,
        ),
    ]


def _of_sequences(dice: _Dice) -> list[Case]:
    positive, angles = dice(64, 48).abs(), 9 * dice(200, 32)
    return [
        *(
            _case(
                sequences.rotary,
                sequences.plain_rotary,
                dice(3, 200, 64, dtype=dtype),
                dice(3, 200, 64, dtype=dtype),
                angles.cos().repeat(1, 2),
                angles.sin().repeat(1, 2),
                tolerance=tolerance,
            )
            for dtype, tolerance in ((torch.float32, _EXACT), (_HALF, _ROUNDED))
        ),
        *(
            _case(
                sequences.self_attention,
                sequences.plain_self_attention,
                *(dice(384, 64, dtype=dtype) for _ in range(3)),
                tolerance=tolerance,
            )
            for dtype, tolerance in ((torch.float32, 1e-5), (_HALF, 2 * _ROUNDED))
        ),
        _case(
            sequences.attention,
            sequences.plain_attention,
            dice(64, 256),
            dice(64, 256),
            dice(256, 64),
            tolerance=1e-5,
        ),
        _case(
            sequences.attention,
            sequences.plain_attention,
            dice(128, 256, dtype=_HALF),
            dice(128, 256, dtype=_HALF),
            dice(256, 128, dtype=_HALF),
            tolerance=2 * _ROUNDED,
        ),
        _case(
            sequences.mamba,
            sequences.plain_mamba,
            positive,
            dice(64, 48),
            -dice(64, 6).abs(),
            dice(6, 48),
            dice(6, 48),
            tolerance=1e-5,
        ),
    ]


def runs() -> list[tuple[str, Any, tuple[Any, ...]]]:
    """For AWS's simulator."""
    return [(case.name, case.kernel, case.arguments) for case in cases()]


def few_runs() -> list[tuple[str, Any, tuple[Any, ...]]]:
    return runs()[:3]
