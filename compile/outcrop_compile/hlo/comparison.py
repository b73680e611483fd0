"""What came of running a graph beside the model in eager mode. No torch, no XLA."""

from __future__ import annotations

import msgspec


class Comparison(msgspec.Struct, frozen=True):
    """tokens: compared, of them `equal` alike, and `near` others that a rounding explains (see
    `outcrop_compile.hlo.rounding`). finite: whether both found the same rows to be numbers. error: the
    largest difference of a KV pool, relative to its largest magnitude."""

    tokens: int
    equal: int
    near: int
    finite: bool
    error: float
    tolerance: float

    @property
    def good(self) -> bool:
        return self.equal + self.near == self.tokens and self.finite and self.error <= self.tolerance
