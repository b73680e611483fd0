"""The choice of a bucket: total over what the backend declares, an error beyond it."""

import itertools

import pytest

from outcrop.backends.cpu import cpu_buckets
from outcrop.engine.buckets import STEP_TOKENS, BucketOverflowError, BucketTable, padded_work
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


def prefill_table(*widths: int) -> BucketTable:
    return BucketTable(Bucket(StepKind.PREFILL, 1, width, 64) for width in widths)


@pytest.mark.parametrize(
    ("left", "chunks"),
    [
        (100, [100]),
        (128, [128]),
        (200, [128, 72]),  # 2 x (128 + 128) rather than 512 + 128
        (400, [400]),
        (600, [512, 88]),  # and not 2048, of which two thirds would be padding
        (1500, [512, 512, 476]),
        (1900, [1900]),
        (5000, [2048, 2048, 512, 392]),
    ],
)
def test_prompts_are_cut_so_that_their_steps_cost_least(left: int, chunks: list[int]) -> None:
    table, cut = prefill_table(128, 512, 2048), []
    while left:
        cut.append(table.chunk(left))
        left -= cut[-1]
    assert cut == chunks


def test_no_other_cut_is_cheaper() -> None:
    widths = (8, 48, 300)
    table = prefill_table(*widths)
    costs = [0]
    for left in range(1, 301):
        costs.append(min(width + STEP_TOKENS + costs[max(0, left - width)] for width in widths))
        spent, rest = 0, left
        while rest:
            chunk = table.chunk(rest)
            spent += min(width for width in widths if width >= chunk) + STEP_TOKENS
            rest -= chunk
        assert spent == costs[left]
