"""Which compiled shape a step runs in."""

from __future__ import annotations

from collections.abc import Iterable

from outcrop_compile.bucket import Bucket, StepKind


class BucketOverflowError(ValueError):
    """No bucket is large enough; the scheduler asked for more than the backend compiled."""


def padded_work(bucket: Bucket) -> int:
    """A bucket's cost in token-equivalents: every token passes the weights, every row reads its blocks."""
    return bucket.rows * bucket.width * 16 + bucket.rows * bucket.blocks


class BucketTable:
    """The backend's buckets, and the choice among them.

    `pick` is pure: the cheapest bucket that holds the step, ties broken by shape.
    """

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self.buckets = tuple(sorted(set(buckets), key=lambda b: (padded_work(b), b.rows, b.width, b.blocks)))
        if not self.buckets:
            raise ValueError("a bucket table needs at least one bucket")
        self._picked: dict[tuple[StepKind, int, int, int], Bucket] = {}

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

    def fits(self, kind: StepKind, rows: int, width: int, blocks: int) -> bool:
        try:
            self.pick(kind, rows, width, blocks)
        except BucketOverflowError:
            return False
        return True

    def max_width(self, kind: StepKind) -> int:
        return max((b.width for b in self.buckets if b.kind is kind), default=0)

    def max_rows(self, kind: StepKind) -> int:
        return max((b.rows for b in self.buckets if b.kind is kind), default=0)
