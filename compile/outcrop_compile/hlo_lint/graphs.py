"""Checks that look at a graph as a whole: what its indices may be, what it keeps, how large it is."""

from __future__ import annotations

import math
from collections.abc import Iterator

from outcrop_compile.hlo.fusion import VIEWS, Fused, written_state
from outcrop_compile.hlo.module import Computation, HloModule, Instruction, Shape, literal
from outcrop_compile.hlo_lint.finding import Breach, checks, everywhere

HBM_BYTES = 16 * 2**30
RESERVED_BYTES = 2 * 2**30
"""Of a NeuronCore's HBM, for code, DMA rings and the runtime."""
_MOST_INSTRUCTIONS = 5_000_000
_TILE = (128, 128, 512)
"""Rows, contraction and columns of one product on the tensor engine."""
_VECTOR = 128 * 512
"""Elements of one instruction of the others."""


@checks("out-of-bounds")
def out_of_bounds(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode == "gather":
            sizes = one.message.integers(34)
            mapped = one.message.message(33).integers(3)
        elif one.opcode == "scatter":
            mapped = one.message.message(48).integers(3)
            inserted = one.message.message(48).integers(2)
            target = computation.operand(one, 0).shape.dimensions
            sizes = [1 if axis in inserted else 0 for axis in range(len(target))]
        else:
            continue
        known = _range(computation, computation.operand(one, 1))
        if known is None or not mapped:
            continue
        # With several columns of indices, what is beyond the longest axis is beyond all of them.
        last = max(computation.operand(one, 0).shape.dimensions[axis] - sizes[axis] for axis in mapped)
        least, most = known
        if least < 0 or most > last:
            yield one, f"indices from {least:.0f} to {most:.0f}, of 0 to {last}"


def _range(computation: Computation, one: Instruction) -> tuple[float, float] | None:
    """Least and largest of what does not depend on the graph's input."""
    while one.opcode in (*VIEWS, "broadcast", "convert", "concatenate") and len(one.operands) == 1:
        one = computation.operand(one, 0)
    if one.opcode == "iota":
        axis = one.dimensions[0] if one.dimensions else 0
        return 0, one.shape.dimensions[axis] - 1
    if one.opcode == "constant":
        values = literal(one)
        return (min(values), max(values)) if values else None
    return None


@checks("not-aliased")
def not_aliased(module: HloModule) -> Iterator[Breach]:
    """An output that is a parameter with something written into it is a state, whoever made the graph."""
    for place, result in enumerate(module.entry.results):
        state, writes = written_state(module.entry, result)
        if not writes or state.opcode != "parameter":
            continue
        if module.aliases.get(place) != state.parameter_number:
            name = state.source.operation or state.name
            yield result, f"output {place} is {name} with something written into it, and not aliased with it"


@checks("kernel-copies")
def kernel_copies(module: HloModule) -> Iterator[Breach]:
    """A kernel's result that is like a state among its operands is that state with something written into
    it."""
    numbers = set(module.aliases.values())
    states = {one.id for one in module.entry.parameters if one.parameter_number in numbers}
    for one in module.entry.instructions:
        if not one.is_kernel:
            continue
        for operand in module.entry.operands(one):
            state, _ = written_state(module.entry, operand)
            if state.id in states and operand.shape in one.made:
                name, size = state.source.operation or state.name, operand.shape.bytes / 1e6
                yield one, f"{one.kernel or 'a kernel'} returns {name} anew, {size:.1f} MB"


@checks("memory")
def memory(module: HloModule) -> Iterator[Breach]:
    parameters = sum(one.shape.bytes for one in module.entry.parameters)
    temporary = Fused(module).peak_bytes()
    if parameters + temporary > HBM_BYTES - RESERVED_BYTES:
        yield (
            None,
            f"{_gib(parameters)} of parameters and {_gib(temporary)} of temporaries, in {_gib(HBM_BYTES)} "
            f"less {_gib(RESERVED_BYTES)} for code and the runtime",
        )


@checks("instructions")
def instructions(module: HloModule) -> Iterator[Breach]:
    total = sum(_count(module.entry, one) for one in module.entry.instructions)
    if total > _MOST_INSTRUCTIONS:
        largest = max(module.entry.instructions, key=lambda one: _count(module.entry, one))
        yield (
            largest,
            f"about {total / 1e6:.1f} million, of which this is {_count(module.entry, largest) / 1e6:.1f}",
        )


def _count(computation: Computation, one: Instruction) -> int:
    """Instructions that this comes to, by tiles."""
    if one.opcode in ("parameter", "constant", "tuple", "get-tuple-element", "iota", *VIEWS):
        return 0
    if one.opcode != "dot":
        # A kernel's own are not to be seen here; what it writes in place is not made by it.
        return sum(-(-shape.elements // _VECTOR) for shape in one.made)
    numbers = one.message.message(30)
    left, right = (computation.operand(one, side).shape for side in (0, 1))
    batch = _product(left, numbers.integers(3))
    contracted = _product(left, numbers.integers(1))
    rows = left.elements // max(1, batch * contracted)
    columns = right.elements // max(1, batch * contracted)
    # Whichever side is narrower moves; the other is loaded in tiles.
    rows, columns = min(rows, columns), max(rows, columns)
    tiles = (-(-size // tile) for size, tile in zip((rows, contracted, columns), _TILE, strict=True))
    return batch * math.prod(tiles)


def _product(shape: Shape, axes: list[int]) -> int:
    return math.prod(shape.dimensions[axis] for axis in axes)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
