"""Checks of single instructions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase

from outcrop_compile.hlo.module import INTEGERS, Computation, HloModule, Instruction, literal
from outcrop_compile.hlo_lint.finding import Breach, checks, everywhere
from outcrop_compile.hlo_lint.rules import CUSTOM_CALLS, LISTED

_FP8 = frozenset({"f8e4m3fn", "f8e4m3fnuz", "f8e5m2fnuz", "f8e4m3b11fnuz"})
_COMPLEX = frozenset({"c64", "c128"})
_TYPES = frozenset({
    "pred", "s8", "s16", "s32", "s64", "u8", "u16", "u32", "u64", "f16", "bf16", "f32", "f8e4m3", "f8e5m2",
    "f8e3m4", "token", "opaque",
})  # fmt: skip
_RNG = frozenset({"rng", "rng-bit-generator", "rng-get-and-update-state"})
_UNSUPPORTED = frozenset({
    "fft", "cholesky", "triangular-solve", "infeed", "outfeed", "send", "recv", "send-done", "recv-done",
})  # fmt: skip
_CONTROL = frozenset({"while", "conditional"})
_DYNAMIC = frozenset({"set-dimension-size", "get-dimension-size", "dynamic-reshape"})
_WINDOW = 64
"""A window along an axis that is longer than this is a running sum and no pooling."""
_DESCRIPTORS = 4096
"""Pieces that DMA moves one by one before it shows in a step."""
_DMA_BYTES = 512
_BULK = 1024
_NAMED = _RNG | _UNSUPPORTED | _CONTROL | _DYNAMIC | frozenset({"sort", "reduce-window", "domain", "complex"})


@checks("dynamic-shape")
def dynamic_shape(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode in _DYNAMIC or any(shape.dynamic for shape in one.shape.leaves()):
            yield one, "a dynamic dimension"


@checks("custom-call")
def custom_call(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode == "custom-call" and not any(fnmatchcase(one.target, known) for known in CUSTOM_CALLS):
            yield one, f"target {one.target!r}"


@checks("dtype")
def dtype(module: HloModule) -> Iterator[Breach]:
    known = _TYPES | _FP8 | _COMPLEX
    for _, one in everywhere(module):
        for kind in {shape.type for shape in one.shape.leaves()} - known:
            yield one, kind


@checks("complex")
def complex_numbers(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if any(shape.type in _COMPLEX for shape in one.shape.leaves()):
            yield one, one.shape.type


@checks("fp8")
def fp8(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        for kind in {shape.type for shape in one.shape.leaves()} & _FP8:
            yield one, kind


@checks("rng")
def rng(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode in _RNG:
            algorithm = one.message.integer(70)
            yield one, f"{one.opcode}, algorithm {algorithm}" if algorithm else one.opcode


@checks("topk-integer")
def topk_integer(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode == "topk" or (one.opcode == "custom-call" and one.target == "AwsNeuronTopK"):
            kind = computation.operand(one, 0).shape.type
            if kind in INTEGERS:
                yield one, f"of {kind}"


@checks("scatter-combiner")
def scatter_combiner(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode == "scatter" and one.called:
            combiner = module.computations[one.called[0]]
            kinds = {shape.type for shape in one.shape.leaves()} & (INTEGERS | {"pred"})
            # An overwrite is the update's parameter as it is, or after reshapes of the scalar.
            overwrites = all(step.opcode in ("parameter", "tuple", "copy") for step in combiner.instructions)
            if kinds and not overwrites:
                yield one, f"{combiner.root.opcode} of {', '.join(sorted(kinds))}"


@checks("shift-right")
def shift_right(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode == "shift-right-arithmetic" and one.shape.itemsize != 4:
            yield one, f"of {one.shape.type}"


@checks("dot-integer")
def dot_integer(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode in ("dot", "convolution"):
            kinds = {operand.shape.type for operand in computation.operands(one)} & INTEGERS
            if kinds:
                yield one, f"of {' and '.join(sorted(kinds))}"


@checks("u64-constant")
def u64_constant(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode == "constant" and one.shape.type == "u64":
            yield one, f"{one.shape.elements} of them"


@checks("sort")
def sort(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode == "sort":
            yield one, f"of {one.shape}"


@checks("unsupported")
def unsupported(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode in _UNSUPPORTED:
            yield one, one.opcode


@checks("control-flow")
def control_flow(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode in _CONTROL:
            yield one, one.opcode


@checks("unlisted")
def unlisted(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode not in LISTED | _NAMED:
            yield one, one.opcode


@checks("s64-bulk")
def s64_bulk(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        for shape in one.shape.leaves():
            if (
                shape.type in ("s64", "u64")
                and shape.elements > _BULK
                and not _only_compared(computation, one)
            ):
                yield one, f"{shape.elements} of {shape.type}"


def _only_compared(computation: Computation, one: Instruction) -> bool:
    """Whether it is int32 widened for a comparison, or what it is compared with: torch_xla's index_put looks
    for negative indices like this, and making them 32-bit again loses nothing."""
    if one.opcode == "broadcast":
        origin = computation.operand(one, 0)
        fits = origin.opcode == "constant" and all(
            abs(value) < 1 << 31 for value in literal(origin) or [1 << 31]
        )
    else:
        fits = one.opcode == "convert" and computation.operand(one, 0).shape.itemsize <= 4
    users = computation.users[one.id]
    return fits and bool(users) and all(user.opcode == "compare" for user in users)


@checks("element-scatter")
def element_scatter(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode == "scatter" and not one.message.message(48).integers(1):
            updates = computation.operand(one, len(one.operands) - 1).shape.elements
            if updates > _DESCRIPTORS:
                yield one, f"{updates} elements"


@checks("short-gather")
def short_gather(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode == "gather":
            piece = math.prod(one.message.integers(34)) * computation.operand(one, 0).shape.itemsize
            pieces = one.shape.bytes // max(1, int(piece))
            if piece < _DMA_BYTES and pieces >= _DESCRIPTORS:
                yield one, f"{pieces} pieces of {piece:.0f} bytes"


@checks("not-finite")
def not_finite(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode != "constant":
            continue
        if all(math.isfinite(value) for value in literal(one) or ()):
            continue
        users = computation.users[one.id]
        if not users or any(not _harmless(computation, user, one) for user in users):
            yield one, "read by " + ", ".join(user.opcode for user in users)


def _harmless(computation: Computation, user: Instruction, constant: Instruction) -> bool:
    """Whether the constant is what a reduction starts from, which never comes out of one along an axis that
    has elements; or a branch of a choice between constants, as torch's mean has for an axis without any."""
    if user.opcode in ("reduce", "reduce-window", "select-and-scatter"):
        return constant.id in user.operands[len(user.operands) // 2 :]
    if user.opcode != "select" or user.shape.elements != 1:
        return False
    asked = computation.operand(user, 0)
    return asked.opcode == "constant" or all(one.opcode == "constant" for one in computation.operands(asked))


@checks("integer-division")
def integer_division(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode in ("divide", "remainder") and one.shape.type in INTEGERS:
            yield one, f"of {one.shape.type}"
        elif one.opcode == "floor":
            quotient = computation.operand(one, 0)
            if quotient.opcode == "divide" and _was_integer(computation, computation.operand(quotient, 0)):
                yield one, "the floor of a quotient of integers"


def _was_integer(computation: Computation, one: Instruction) -> bool:
    while one.opcode in ("reshape", "broadcast", "copy", "bitcast"):
        one = computation.operand(one, 0)
    return one.opcode == "convert" and computation.operand(one, 0).shape.type in INTEGERS


@checks("power")
def power(module: HloModule) -> Iterator[Breach]:
    for computation, one in everywhere(module):
        if one.opcode == "power":
            exponent = computation.operand(one, 1)
            while exponent.opcode in ("broadcast", "reshape", "convert"):
                exponent = computation.operand(exponent, 0)
            if exponent.opcode != "constant":
                yield one, f"its exponent is a {exponent.opcode}"


@checks("reduce-window")
def reduce_window(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode == "reduce-window":
            sizes = [window.integer(1) for window in one.message.message(15).messages(1)]
            if max(sizes, default=1) > _WINDOW:
                yield one, f"a window of {max(sizes)}"


@checks("integer-collective")
def integer_collective(module: HloModule) -> Iterator[Breach]:
    for _, one in everywhere(module):
        if one.opcode in ("all-reduce", "reduce-scatter", "all-reduce-start"):
            kinds = {shape.type for shape in one.shape.leaves()} & INTEGERS
            if kinds:
                yield one, f"of {', '.join(sorted(kinds))}"
