"""Which compiled shape a step runs in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from outcrop_compile.bucket import Bucket, StepKind


class BucketOverflowError(ValueError):
    """No bucket is large enough; the scheduler asked for more than the backend compiled."""


def padded_work(bucket: Bucket) -> int:
    """A bucket's cost in token-equivalents: every token passes the weights, every row reads its blocks."""
    return bucket.rows * bucket.width * 16 + bucket.rows * bucket.blocks


STEP_TOKENS = 128
"""What a prefill step costs beside its tokens, in tokens: reading the weights, and collectives. On a
NeuronCore weights are read in the time that about so many tokens are computed, however many cores share
them."""


class BucketTable:
    """The backend's buckets, and the choice among them.

    `pick` is pure: the cheapest bucket that holds the step, ties broken by shape.
    """

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self.buckets = tuple(sorted(set(buckets), key=lambda b: (padded_work(b), b.rows, b.width, b.blocks)))
        if not self.buckets:
            raise ValueError("a bucket table needs at least one bucket")
        self._picked: dict[tuple[StepKind, int, int, int], Bucket] = {}
        self._widths = sorted({b.width for b in self.buckets if b.kind is StepKind.PREFILL})
        self._costs: dict[int, tuple[int, int]] = {}
        self._most_rows = {
            kind: max((b.rows for b in self.buckets if b.kind is kind), default=0) for kind in StepKind
        }

    def pick(self, kind: StepKind, rows: int, width: int, blocks: int) -> Bucket:
        """The cheapest bucket of this kind that holds rows x width tokens and `blocks` blocks a row."""
        key = (kind, rows, width, blocks)
        if (found := self._picked.get(key)) is not None:
            return found
        for bucket in self.buckets:
            if (
                bucket.kind is kind
                and bucket.rows >= rows
                and bucket.width >= width
                and bucket.blocks >= blocks
            ):
                self._picked[key] = bucket
                return bucket
        raise BucketOverflowError(f"no {kind} bucket holds {rows} rows x {width} tokens, {blocks} blocks")

    def chunk(self, left: int) -> int:
        """How many of a prompt's `left` tokens the next prefill step takes, so that all its steps together
        cost least: all of them, padded to a bucket, or as many as fill a narrower one."""
        if left >= self._widths[-1]:
            return self._widths[-1]
        return self._cheapest(left)[1]

    def _cheapest(self, left: int) -> tuple[int, int]:
        """The cost of so many tokens, of which one step can take all, and the first chunk of the cheapest
        way."""
        if (known := self._costs.get(left)) is not None:
            return known
        place = bisect_left(self._widths, left)
        best = (self._widths[place] + STEP_TOKENS, left)
        if place:
            narrower = self._widths[place - 1]
            best = min(best, (narrower + STEP_TOKENS + self._cheapest(left - narrower)[0], narrower))
        self._costs[left] = best
        return best

    def fits(self, kind: StepKind, rows: int, width: int, blocks: int) -> bool:
        try:
            self.pick(kind, rows, width, blocks)
        except BucketOverflowError:
            return False
        return True

    def max_width(self, kind: StepKind) -> int:
        return max((b.width for b in self.buckets if b.kind is kind), default=0)

    def max_rows(self, kind: StepKind) -> int:
        return self._most_rows[kind]
