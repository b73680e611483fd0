"""A matrix of small integers with the scales that turn them into its numbers. No torch, so that it can hold
numpy's arrays too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

GROUP = 32
"""Inputs that share a scale: always those of an activation, and those of a weight unless it has one for each
output feature. What GGUF's Q4_0, Q4_1 and Q8_0 have."""

SCALE = "_scale"
"""What a quantised matrix's name is followed by in the name of its scales."""

Array = TypeVar("Array")


@dataclass(frozen=True, slots=True)
class Quantised(Generic[Array]):
    """The matrix [out, in] whose numbers are codes * scale + minimum.

    codes: int8 [out, in], 0 .. 15 or -8 .. 7 where bits is 4. scale: float32 [out, 1], or
    [out, in / GROUP] with one for each group of inputs. minimum: float32 of scale's shape, and then codes of
    4 bits are 0 .. 15; None for 0, and then they are -8 .. 7.
    """

    codes: Array
    scale: Array
    minimum: Array | None
    bits: Literal[4, 8]
