"""What kernels are checked on: a grid of shapes with random numbers, and what the reference says to them.

Rows 1 to 32, 1 to 64 blocks a row, head sizes 64 and 128, 4 and 8 query heads to a key-value head, the widths
of Llama 3.1 8B at tp 1 and tp 8, contexts of all lengths, padded rows, both types.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.nki.catalogue import KERNELS
from outcrop_kernels.nki.kernel import Entry, dtype_of
from outcrop_kernels.nki.operations import Call, simulated

Make = Callable[[], tuple[Entry, tuple[Any, ...], tuple[Tensor, ...]]]

_EPS = 1e-5
_TYPES = (torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Case:
    """kernel: its name. words: the sizes. small: whether it is done in a second. make: the function, its
    arguments and the reference's results."""

    kernel: str
    words: str
    small: bool
    make: Make


@dataclass(frozen=True, slots=True)
class Outcome:
    """error: the largest difference of any result, as a part of that result's largest magnitude. allowed: the
    contract's."""

    error: float
    allowed: float

    @property
    def good(self) -> bool:
        return self.error <= self.allowed


def check(case: Case, *, gather: bool = True, seeds: tuple[int, ...] = (1,)) -> Outcome:
    """Run a case in the simulator. seeds: other orders of its independent loops to try. Raises the
    simulator's Refused."""
    entry, arguments, expected = case.make()
    results, _ = simulated(Call(case.kernel, entry, arguments, gather), seeds)
    results = results if isinstance(results, tuple) else (results,)
    kind = dtype_of(arguments[0])
    error = max(distance(one, other) for one, other in zip(results, expected, strict=True))
    return Outcome(error, entry.contract.tolerance[kind])


def distance(result: Tensor, expected: Tensor) -> float:
    """The largest difference, as a part of the largest magnitude that is expected."""
    if result.shape != expected.shape or not torch.isfinite(result.to(torch.float64)).all():
        return float("inf")
    apart = (result.to(torch.float64) - expected.to(torch.float64)).abs().amax()
    return float(apart / expected.to(torch.float64).abs().amax().clamp(min=1e-30))


def cases() -> Iterator[Case]:
    """The whole grid, kernel by kernel."""
    for kind in _TYPES:
        for rows, heads, dim in itertools.product((1, 7, 32, 160), (1, 8), (64, 128)):
            yield _case("kv_cache_write", kind, True, _write, rows, heads, dim)
        for rows, blocks, heads, group, dim in itertools.product(
            (1, 5, 32), (1, 4, 16, 64), (1, 8), (4, 8), (64, 128)
        ):
            if rows * heads > 40 and (dim, group, kind) != (128, 4, torch.bfloat16):
                continue  # minutes each
            small = rows * blocks * heads <= 64
            yield _case("paged_decode_attention", kind, small, _decode, rows, blocks, heads, group, dim)
        for rows, blocks, heads, group in ((2, 200, 1, 4), (2, 4, 2, 8), (3, 33, 1, 4)):
            yield _case("paged_decode_attention", kind, True, _verify, rows, blocks, heads, group, 128)
        for width, blocks, heads, group, dim in itertools.product(
            (128, 200), (8, 64, 128), (1, 8), (4, 8), (64, 128)
        ):
            if blocks * heads > 64 and (width, dim, group, kind) != (128, 128, 4, torch.bfloat16):
                continue
            small = blocks * heads <= 8
            yield _case("paged_prefill_attention", kind, small, _prefill, width, blocks, heads, group, dim)
        for blocks, size in ((150, 32), (300, 32), (70, 64)):
            yield _case("paged_prefill_attention", kind, size == 64, _long, 40, blocks, size)
        for tokens, width in itertools.product((1, 3, 32, 130), (576, 2048, 4096, 8192)):
            yield _case("rmsnorm", kind, True, _norm, tokens, width)
            yield _case("rmsnorm", kind, True, _add_norm, tokens, width)
        for tokens, heads, dim in itertools.product((1, 5, 32, 130), (1, 4, 8, 32), (64, 128)):
            yield _case("rope", kind, True, _rope, tokens, heads, dim)
        for tokens, (heads, kv_heads), dim in itertools.product(
            (1, 8, 32, 128), ((4, 1), (8, 1), (32, 8)), (64, 128)
        ):
            small = heads * tokens <= 64
            yield _case("fused_qkv", kind, small, _qkv, tokens, heads, kv_heads, dim)
        for tokens, (width, features) in itertools.product(
            (1, 8, 32, 128), ((512, 256), (4096, 1792), (2048, 8192))
        ):
            yield _case("swiglu_mlp", kind, width == 512, _mlp, tokens, width, features)
            yield _case("int8_dequant_matmul", kind, width == 512, _int8, tokens, width, features)
    for rows, width, count in itertools.product((1, 5, 32), (512, 16032, 64128), (8, 64, 256)):
        small = rows * width <= 100_000
        yield _case("topk_sample", torch.float32, small, _topk, rows, width, count)
    for rows, width in itertools.product((1, 5, 32), (512, 16032, 64128)):
        yield _case("topk_sample", torch.float32, True, _largest, rows, width)


def _case(kernel: str, kind: torch.dtype, small: bool, make: Callable[..., Any], *sizes: int) -> Case:
    words = f"{make.__name__.lstrip('_')} {'x'.join(map(str, sizes))} {str(kind).removeprefix('torch.')}"

    def made() -> Any:
        dice = torch.Generator().manual_seed(sum(sizes))
        return make(_Numbers(dice, kind), *sizes)

    return Case(kernel, words, small, made)


class _Numbers:
    """Random tensors of one type."""

    def __init__(self, dice: torch.Generator, kind: torch.dtype) -> None:
        self.dice, self.kind = dice, kind

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.dice).to(self.kind)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.dice, dtype=torch.int32)

    def angles(self, tokens: int, dim: int) -> tuple[Tensor, Tensor]:
        turned = torch.randn(tokens, dim // 2, generator=self.dice) * 100
        return turned.cos(), turned.sin()


def _write(numbers: _Numbers, rows: int, heads: int, dim: int) -> Any:
    """Every row at a slot of its own, one in eight of them not a number."""
    blocks, size = rows // 16 + 2, 32
    pool, values = numbers(blocks, size, heads, dim), numbers(rows, heads, dim)
    values[::8, :, ::3] = float("nan")
    values[::8, :, 1::3] = float("-inf")
    slots = torch.randperm(blocks * size, generator=numbers.dice)[:rows].to(torch.int32)
    expected = reference.kv_write(pool, slots, values).reshape(-1, heads * dim)
    flat = (pool.reshape(-1, heads * dim), slots, values.reshape(rows, -1), reference.FINITE_MAX)
    return KERNELS["kv_cache_write"].entries[0], flat, (expected,)


def _decode(numbers: _Numbers, rows: int, blocks: int, heads: int, group: int, dim: int) -> Any:
    return _attention(numbers, "paged_decode_attention", rows, 1, blocks, heads, group, dim)


def _verify(numbers: _Numbers, rows: int, blocks: int, heads: int, group: int, dim: int) -> Any:
    """Five tokens a row."""
    return _attention(numbers, "paged_decode_attention", rows, 5, blocks, heads, group, dim)


def _prefill(numbers: _Numbers, width: int, blocks: int, heads: int, group: int, dim: int) -> Any:
    return _attention(numbers, "paged_prefill_attention", 1, width, blocks, heads, group, dim)


def _long(numbers: _Numbers, width: int, blocks: int, size: int) -> Any:
    """More keys than pass at a time, the last of the row among those that are asked for."""
    entry, arguments, _ = _attention(numbers, "paged_prefill_attention", 1, width, blocks, 1, 4, 128, size)
    query, *pools, tables, positions = arguments
    positions += blocks * size - 1 - positions[0, -1]
    wide = (query.float(), *(pool.float() for pool in pools), tables, positions)
    return entry, arguments, (reference.paged_attention(*wide),)


def _attention(
    numbers: _Numbers,
    name: str,
    rows: int,
    width: int,
    blocks: int,
    kv_heads: int,
    group: int,
    dim: int,
    size: int = 32,
) -> Any:
    """Rows of all lengths; every fourth is padded: one token at position 0, all blocks the sink."""
    held = min(rows * blocks, 96)
    pools = [numbers(held + 1, size, kv_heads, dim) for _ in range(2)]
    query = numbers(rows, width, kv_heads * group, dim)
    tables = numbers.integers(0, held, rows, blocks)
    first = numbers.integers(0, max(1, blocks * size - width), rows, 1)
    positions = torch.clamp(first + torch.arange(width, dtype=torch.int32), max=blocks * size - 1)
    tables[3::4], positions[3::4] = held, 0
    arguments = (query, *pools, tables, positions)
    wide = [one.float() if one.is_floating_point() else one for one in arguments]
    return KERNELS[name].entries[0], arguments, (reference.paged_attention(*wide),)


def _topk(numbers: _Numbers, rows: int, width: int, count: int) -> Any:
    """Tokens are compared by the logits that they stand for, as equal ones may come in any order; `_largest`
    has equal logits, and an order."""
    logits = numbers(rows, width)
    return KERNELS["topk_sample"].entries[0], (logits, count), reference.candidates(logits, count)


def _largest(numbers: _Numbers, rows: int, width: int) -> Any:
    logits = numbers(rows, width)
    logits[:, [width // 3, width - 5]] = 9.0
    return KERNELS["topk_sample"].entries[1], (logits,), (reference.greedy(logits),)


def _norm(numbers: _Numbers, tokens: int, width: int) -> Any:
    x, weight = numbers(tokens, width), 1 + 0.1 * numbers(width)
    expected = reference.rms_norm(x.float(), weight.float(), _EPS)
    return KERNELS["rmsnorm"].entries[0], (x, weight, _EPS), (expected,)


def _add_norm(numbers: _Numbers, tokens: int, width: int) -> Any:
    x, update, weight = numbers(tokens, width), numbers(tokens, width), 1 + 0.1 * numbers(width)
    total = reference.add(x, update)
    expected = reference.rms_norm(total.float(), weight.float(), _EPS)
    return KERNELS["rmsnorm"].entries[1], (x, update, weight, _EPS), (total, expected)


def _rope(numbers: _Numbers, tokens: int, heads: int, dim: int) -> Any:
    x, angles = numbers(tokens, heads, dim), numbers.angles(tokens, dim)
    return KERNELS["rope"].entries[0], (x, *angles), (reference.rope(x.float(), *angles),)


def _qkv(numbers: _Numbers, tokens: int, heads: int, kv_heads: int, dim: int) -> Any:
    width, total = 1024, heads + 2 * kv_heads
    x, norm, angles = numbers(tokens, width), 1 + 0.1 * numbers(width), numbers.angles(tokens, dim)
    weight = numbers(total * dim, width) * width**-0.5
    normed = reference.rms_norm(x.float(), norm.float(), _EPS)
    made = reference.linear(normed, weight.float()).reshape(tokens, total, dim)
    expected = (
        reference.rope(made[:, :heads], *angles),
        reference.rope(made[:, heads : heads + kv_heads], *angles),
        made[:, heads + kv_heads :],
    )
    arguments = (x, norm, weight.T.contiguous(), *angles, heads, _EPS)
    return KERNELS["fused_qkv"].entries[0], arguments, expected


def _mlp(numbers: _Numbers, tokens: int, width: int, features: int) -> Any:
    x = numbers(tokens, width)
    gate_up, down = numbers(2 * features, width) * width**-0.5, numbers(width, features) * features**-0.5
    hidden = reference.swiglu(reference.linear(x.float(), gate_up.float()))
    expected = reference.linear(hidden, down.float())
    arguments = (x, gate_up.T.contiguous(), down.T.contiguous())
    return KERNELS["swiglu_mlp"].entries[0], arguments, (expected,)


def _int8(numbers: _Numbers, tokens: int, width: int, features: int) -> Any:
    x = numbers(tokens, width)
    matrix = reference.quantise_channels(numbers(features, width).float() * width**-0.5)
    expected = reference.linear_int8(x.float(), matrix.codes, matrix.scale)
    arguments = (x, matrix.codes.T.contiguous(), matrix.scale)
    return KERNELS["int8_dequant_matmul"].entries[0], arguments, (expected,)
