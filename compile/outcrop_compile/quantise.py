"""Which form a matrix is quantised in, and the quantising, in numpy: what
`outcrop_kernels.reference.quantise_channels` defines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from outcrop_kernels.quantised import GROUP, SCALE, Quantised

if TYPE_CHECKING:
    from outcrop_compile.checkpoint.groups import Groups

Allocate = Callable[[str, tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]
"""Makes an array of zeros for a name, a shape and a type, wherever it is to lie."""
_ROWS = 1 << 16  # numbers quantised at a time: what is made on the way stays in a core's cache


@dataclass(frozen=True, slots=True)
class Form:
    """groups: a scale (and, with `ranges`, a minimum) for each group of inputs, as the file has them; else a
    scale for each output feature."""

    bits: Literal[4, 8]
    groups: bool
    ranges: bool = False


def form_of(found: Sequence[Groups | None], dtype: Literal["int8", "int4"]) -> Form:
    """The form of a matrix whose parts are stored in these groups: the file's, where all parts have one."""
    kinds = [each for each in found if each is not None]
    if len(kinds) == len(found):
        if dtype == "int4" and all(each.bits == 4 for each in kinds):
            return Form(4, groups=True, ranges=any(each.ranges for each in kinds))
        if all(each.bits == 8 for each in kinds):
            return Form(8, groups=True)
    return Form(8, groups=False)


def zeros(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros in memory."""
    return np.zeros(shape, dtype)


def zero_quantised(
    name: str, shape: tuple[int, ...], form: Form, allocate: Allocate = zeros
) -> Quantised[npt.NDArray[Any]]:
    """A matrix [out, in] of zeros, of a form. Its scales and minima are named after it."""
    features, depth = shape
    groups = (features, depth // GROUP if form.groups else 1)
    codes = allocate(name, shape, np.int8)
    scale = allocate(name + SCALE, groups, np.float32)
    minimum = allocate(name + "_minimum", groups, np.float32) if form.ranges else None
    return Quantised(codes, scale, minimum, form.bits)


def quantise_channels(numbers: npt.NDArray[Any], out: Quantised[npt.NDArray[Any]]) -> None:
    """Write a float32 matrix [out, in] to `out`, in 8 bits with a scale for each output feature."""
    step = max(1, _ROWS // numbers.shape[1])
    for row in range(0, len(numbers), step):
        rows = numbers[row : row + step]
        scale = np.maximum(rows.max(axis=1), -rows.min(axis=1)) / np.float32(127)
        out.scale[row : row + step, 0] = scale
        rounded = rows / np.where(scale > 0, scale, np.float32(1))[:, None]
        np.rint(rounded, out=rounded)
        out.codes[row : row + step] = rounded
