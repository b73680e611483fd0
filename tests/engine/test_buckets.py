"""The choice of a bucket: total over what the backend declares, an error beyond it."""

import itertools

import pytest

from outcrop.backends.cpu import cpu_buckets
from outcrop.engine.buckets import BucketOverflowError, BucketTable, padded_work
from outcrop_compile.bucket import Bucket, StepKind


def test_every_step_within_the_table_gets_the_cheapest_bucket_that_holds_it() -> None:
    buckets = cpu_buckets(max_rows=6, max_blocks=20)
    table = BucketTable(buckets)
    for kind, rows, width, blocks in itertools.product(
        StepKind, range(1, 9), (1, 15, 16, 17, 300, 600), (1, 20, 21)
    ):
        fitting = [
            b for b in buckets
            if b.kind is kind and b.rows >= rows and b.width >= width and b.blocks >= blocks
        ]  # fmt: skip
        if fitting:
            picked = table.pick(kind, rows, width, blocks)
            assert picked in fitting
            assert padded_work(picked) == min(map(padded_work, fitting))
            assert table.fits(kind, rows, width, blocks)
        else:
            assert not table.fits(kind, rows, width, blocks)
            with pytest.raises(BucketOverflowError, match=f"no {kind} bucket holds {rows} rows"):
                table.pick(kind, rows, width, blocks)


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one bucket"):
        BucketTable([])


def test_equal_cost_is_broken_by_shape_not_by_order() -> None:
    one, other = Bucket(StepKind.PREFILL, 2, 8, 4), Bucket(StepKind.PREFILL, 2, 8, 5)
    assert BucketTable([other, one]).pick(StepKind.PREFILL, 1, 1, 1) == one
