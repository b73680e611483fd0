"""What kernels are checked on: a grid of shapes with random numbers, and what the reference says to them.

Rows 1 to 32 and 1 to 64 blocks a row, each number of them; head sizes 64 and 128; 4 and 8 query heads to a
key-value head; the widths of Llama 3.1 8B, 3.2 1B and 3.1 70B at tp 1 and tp 8; contexts of all lengths,
whole ones and ones that have just begun a block among them; padded rows; both types, and codes of 8 bits. For
prefill also several rows, more queries and keys than pass at a time, and as many keys as its contract takes.
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
from outcrop_kernels.nki.kernel import Entry
from outcrop_kernels.nki.operations import Call, simulated

Make = Callable[[], tuple[Entry, tuple[Any, ...], tuple[Tensor, ...]]]

_EPS = 1e-5
_TYPES = (torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Case:
    """kernel: its name. words: the sizes. dtype: torch's name of the type. small: whether it is done in a
    second. make: the function, its arguments and the reference's results."""

    kernel: str
    words: str
    dtype: str
    small: bool
    make: Make


@dataclass(frozen=True, slots=True)
class Outcome:
    """error: of all results, as `distance` has it. allowed: the contract's."""

    error: float
    allowed: float

    @property
    def good(self) -> bool:
        return self.error <= self.allowed


def check(case: Case, *, gather: bool = True, seeds: tuple[int, ...] = (0,)) -> Outcome:
    """Run a case in the simulator. seeds: other orders of its independent loops to try; 0 turns them round.
    Raises the simulator's Refused."""
    entry, arguments, expected = case.make()
    results, _ = simulated(Call(case.kernel, entry, arguments, gather), seeds)
    results = results if isinstance(results, tuple) else (results,)
    error = max(distance(one, other) for one, other in zip(results, expected, strict=True))
    return Outcome(error, entry.contract.tolerance[case.dtype])


def distance(result: Tensor, expected: Tensor) -> float:
    """The largest difference along the last dimension, as a part of the largest magnitude that is expected
    there: means over a long context are small beside a first token's, and held to their own size."""
    made, wanted = result.to(torch.float64), expected.to(torch.float64)
    if made.shape != wanted.shape or not torch.isfinite(made).all():
        return float("inf")
    apart, large = (made - wanted).abs().amax(dim=-1), wanted.abs().amax(dim=-1)
    return float((apart / large.clamp(min=1e-30)).amax())


def cases() -> Iterator[Case]:
    """The whole grid, kernel by kernel."""
    for kernel, grid in _GRIDS.items():
        for kind in KERNELS[kernel].entries[0].contract.tolerance:
            yield from grid(getattr(torch, kind))


def first_cases() -> list[Case]:
    """A small one of each form of each kernel, in bfloat16 where there is that."""
    found: dict[tuple[str, str], Case] = {}
    for case in cases():
        if case.small:
            found.setdefault((case.kernel, case.words.partition(" ")[0]), case)
    return list(found.values())


def runs() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """`first_cases` for another simulator: a name, the kernel, and its arguments, without gathers."""
    for case in first_cases():
        entry, arguments, _ = case.make()
        call = Call(case.kernel, entry, arguments, gather=False)
        yield f"{case.kernel} {case.words}", entry.function, call.complete


def _kv_writes(kind: torch.dtype) -> Iterator[Case]:
    for rows, heads, dim in itertools.product((1, 7, 32, 160), (1, 8), (64, 128)):
        yield _case("kv_cache_write", kind, True, _write, rows, heads, dim)


def _decodes(kind: torch.dtype) -> Iterator[Case]:
    name = "paged_decode_attention"
    for rows, blocks, heads, group, dim in itertools.product(
        (1, 5, 32), (1, 4, 16, 64), (1, 8), (4, 8), (64, 128)
    ):
        pages = rows * blocks * heads
        if pages <= 2560 or (dim, group, kind) == (128, 4, torch.bfloat16):  # minutes each beyond that
            yield _case(name, kind, pages <= 64, _decode, rows, blocks, heads, group, dim)
    for rows, blocks, heads, group in ((2, 200, 1, 4), (2, 4, 2, 8), (3, 33, 1, 4)):
        yield _case(name, kind, True, _verify, rows, blocks, heads, group, 128)
    for blocks, size in ((9, 16), (5, 64), (3, 128)):
        yield _case(name, kind, size == 16, _decode_sized, 5, blocks, size)
    every = [(count, 3) for count in range(1, 33)] + [(3, count) for count in range(1, 65)]
    for number, (rows, blocks) in enumerate(every):
        # Types, groups and head sizes take turns.
        if _TYPES[number % 2] == kind:
            group, dim = (4, 8)[number // 2 % 2], (64, 128)[number // 4 % 2]
            yield _case(name, kind, False, _decode, rows, blocks, 1, group, dim)


def _prefills(kind: torch.dtype) -> Iterator[Case]:
    name = "paged_prefill_attention"
    for width, blocks, heads, group, dim in itertools.product(
        (128, 200), (8, 64, 128), (1, 8), (4, 8), (64, 128)
    ):
        pages = blocks * heads
        if pages <= 64 or (width, dim, group, kind) == (128, 128, 4, torch.bfloat16):
            yield _case(name, kind, pages <= 8, _prefill, width, blocks, heads, group, dim)
    for rows, width, blocks, heads, group, dim in (
        (4, 24, 3, 1, 4, 64), (5, 1, 2, 2, 8, 128), (5, 130, 9, 2, 8, 128),
    ):  # fmt: skip
        yield _case(name, kind, width < 130, _prefill_rows, rows, width, blocks, heads, group, dim)
    for width, blocks, size in (
        (40, 150, 32), (40, 300, 32), (40, 70, 64), (1100, 40, 32), (1100, 150, 32), (8, 4096, 32),
    ):  # fmt: skip
        yield _case(name, kind, size == 64, _long, width, blocks, size)


def _top_ks(kind: torch.dtype) -> Iterator[Case]:
    for rows, width, count in itertools.product((1, 5, 32), (512, 16032, 64128, 128256), (8, 64, 256)):
        yield _case("topk_sample", kind, rows * width <= 100_000, _topk, rows, width, count)
    for rows, width in itertools.product((1, 5, 32), (512, 16032, 64128, 128256)):
        yield _case("topk_sample", kind, width < 100_000, _largest, rows, width)


def _norms(kind: torch.dtype) -> Iterator[Case]:
    for tokens, width in itertools.product((1, 3, 32, 130), (576, 2048, 4096, 8192)):
        yield _case("rmsnorm", kind, True, _norm, tokens, width)
        yield _case("rmsnorm", kind, True, _add_norm, tokens, width)


def _ropes(kind: torch.dtype) -> Iterator[Case]:
    for tokens, heads, dim in itertools.product((1, 5, 32, 130), (1, 4, 8, 32), (64, 128)):
        yield _case("rope", kind, True, _rope, tokens, heads, dim)


def _qkvs(kind: torch.dtype) -> Iterator[Case]:
    for tokens, (heads, kv_heads), dim in itertools.product(
        (1, 8, 32, 128), ((4, 1), (8, 1), (32, 8)), (64, 128)
    ):
        small = heads * tokens <= 64
        yield _case("fused_qkv", kind, small, _qkv, tokens, 1024, heads, kv_heads, dim)
    for tokens, (width, heads, kv_heads, dim) in itertools.product(
        (1, 32), ((4096, 4, 1, 128), (4096, 32, 8, 128), (2048, 32, 8, 64), (8192, 8, 1, 128))
    ):
        yield _case("fused_qkv", kind, False, _qkv, tokens, width, heads, kv_heads, dim)


_MATRICES = ((512, 256), (4096, 1792), (2048, 8192), (8192, 3584))


def _mlps(kind: torch.dtype) -> Iterator[Case]:
    for tokens, (width, features) in itertools.product((1, 8, 32, 128), _MATRICES):
        yield _case("swiglu_mlp", kind, width == 512, _mlp, tokens, width, features)


def _int8s(kind: torch.dtype) -> Iterator[Case]:
    for tokens, (width, features) in itertools.product((1, 8, 32, 128), _MATRICES):
        yield _case("int8_dequant_matmul", kind, width == 512, _int8, tokens, width, features)


_GRIDS: dict[str, Callable[[torch.dtype], Iterator[Case]]] = {
    "kv_cache_write": _kv_writes,
    "paged_decode_attention": _decodes,
    "paged_prefill_attention": _prefills,
    "topk_sample": _top_ks,
    "rmsnorm": _norms,
    "rope": _ropes,
    "fused_qkv": _qkvs,
    "swiglu_mlp": _mlps,
    "int8_dequant_matmul": _int8s,
}


def _case(kernel: str, kind: torch.dtype, small: bool, make: Callable[..., Any], *sizes: int) -> Case:
    dtype = str(kind).removeprefix("torch.")
    words = f"{make.__name__.lstrip('_')} {'x'.join(map(str, sizes))} {dtype}"

    def made() -> Any:
        dice = torch.Generator().manual_seed(sum(sizes))
        return make(_Numbers(dice, kind), *sizes)

    return Case(kernel, words, dtype, small, made)


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


def _wide(x: Tensor) -> Tensor:
    """As the reference is given it: its own rounding, in sums over 131,072 keys, is more than a kernel's."""
    return x.to(torch.float64 if x.dtype == torch.float32 else torch.float32)


def _write(numbers: _Numbers, rows: int, heads: int, dim: int) -> Any:
    """Every row at a slot of its own, one in eight of them not a number; every fourth is padded, and like
    the others in the sink, which is the last block."""
    blocks, size = rows // 16 + 2, 32
    pool, values = numbers(blocks, size, heads, dim), numbers(rows, heads, dim)
    values[::8, :, ::3] = float("nan")
    values[::8, :, 1::3] = float("-inf")
    sink = (blocks - 1) * size
    slots = torch.randperm(sink, generator=numbers.dice)[:rows].to(torch.int32)
    slots[3::4], values[3::4] = sink, values[3:4].clone()
    expected = reference.kv_write(pool, slots, values).reshape(-1, heads * dim)
    flat = (pool.reshape(-1, heads * dim), slots, values.reshape(rows, -1), reference.FINITE_MAX)
    return KERNELS["kv_cache_write"].entries[0], flat, (expected,)


def _decode(numbers: _Numbers, rows: int, blocks: int, heads: int, group: int, dim: int) -> Any:
    return _attention(numbers, "paged_decode_attention", rows, 1, blocks, heads, group, dim)


def _verify(numbers: _Numbers, rows: int, blocks: int, heads: int, group: int, dim: int) -> Any:
    """Five tokens a row."""
    return _attention(numbers, "paged_decode_attention", rows, 5, blocks, heads, group, dim)


def _decode_sized(numbers: _Numbers, rows: int, blocks: int, size: int) -> Any:
    """Blocks of another size."""
    return _attention(numbers, "paged_decode_attention", rows, 1, blocks, 1, 4, 128, size)


def _prefill(numbers: _Numbers, width: int, blocks: int, heads: int, group: int, dim: int) -> Any:
    return _prefill_rows(numbers, 1, width, blocks, heads, group, dim)


def _prefill_rows(
    numbers: _Numbers, rows: int, width: int, blocks: int, heads: int, group: int, dim: int
) -> Any:
    return _attention(numbers, "paged_prefill_attention", rows, width, blocks, heads, group, dim)


def _long(numbers: _Numbers, width: int, blocks: int, size: int) -> Any:
    """More keys, or queries, than pass at a time, the last of the row among those that are asked for."""
    entry, arguments, _ = _attention(numbers, "paged_prefill_attention", 1, width, blocks, 1, 4, 128, size)
    query, *pools, tables, positions = arguments
    positions += blocks * size - 1 - positions[0, -1]
    wide = (_wide(query), *map(_wide, pools), tables, positions)
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
    """Rows of all lengths. Of four, the second sees every place of its blocks and the third has just begun a
    block; the fourth is padded: one token at position 0, all blocks the sink."""
    held = min(rows * blocks, 96)
    pools = [numbers(held + 1, size, kv_heads, dim) for _ in range(2)]
    query = numbers(rows, width, kv_heads * group, dim)
    tables = numbers.integers(0, held, rows, blocks)
    whole = max(0, blocks * size - width)
    first = numbers.integers(0, max(1, whole), rows, 1)
    first[1::4] = whole
    first[2::4] -= first[2::4] % size
    positions = torch.clamp(first + torch.arange(width, dtype=torch.int32), max=blocks * size - 1)
    tables[3::4], positions[3::4] = held, 0
    arguments = (query, *pools, tables, positions)
    wide = [_wide(one) if one.is_floating_point() else one for one in arguments]
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
    expected = reference.rms_norm(_wide(x), _wide(weight), _EPS)
    return KERNELS["rmsnorm"].entries[0], (x, weight, _EPS), (expected,)


def _add_norm(numbers: _Numbers, tokens: int, width: int) -> Any:
    x, update, weight = numbers(tokens, width), numbers(tokens, width), 1 + 0.1 * numbers(width)
    total = reference.add(x, update)
    expected = reference.rms_norm(_wide(total), _wide(weight), _EPS)
    return KERNELS["rmsnorm"].entries[1], (x, update, weight, _EPS), (total, expected)


def _rope(numbers: _Numbers, tokens: int, heads: int, dim: int) -> Any:
    x, angles = numbers(tokens, heads, dim), numbers.angles(tokens, dim)
    return KERNELS["rope"].entries[0], (x, *angles), (reference.rope(_wide(x), *angles),)


def _qkv(numbers: _Numbers, tokens: int, width: int, heads: int, kv_heads: int, dim: int) -> Any:
    total = heads + 2 * kv_heads
    x, norm, angles = numbers(tokens, width), 1 + 0.1 * numbers(width), numbers.angles(tokens, dim)
    weight = numbers(total * dim, width) * width**-0.5
    normed = reference.rms_norm(_wide(x), _wide(norm), _EPS)
    made = reference.linear(normed, _wide(weight)).reshape(tokens, total, dim)
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
    hidden = reference.swiglu(reference.linear(_wide(x), _wide(gate_up)))
    expected = reference.linear(hidden, _wide(down))
    arguments = (x, gate_up.T.contiguous(), down.T.contiguous())
    return KERNELS["swiglu_mlp"].entries[0], arguments, (expected,)


def _int8(numbers: _Numbers, tokens: int, width: int, features: int) -> Any:
    x = numbers(tokens, width)
    matrix = reference.quantise_channels(numbers(features, width).float() * width**-0.5)
    expected = reference.linear_int8(_wide(x), matrix.codes, matrix.scale)
    arguments = (x, matrix.codes.T.contiguous(), matrix.scale)
    return KERNELS["int8_dequant_matmul"].entries[0], arguments, (expected,)
