"""Invariants 1 and 3: the block pool under random lives."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outcrop.engine.block_pool import BlockPool, OutOfBlocksError

NUM_BLOCKS = 12


class PoolMachine(RuleBasedStateMachine):
    """Holders take, share and drop blocks; a model counts beside the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.evicted: list[int] = []
        self.pool = BlockPool(NUM_BLOCKS, self.evicted.append)
        self.holders: list[list[int]] = []
        self.cached: set[int] = set()

    @rule(count=st.integers(0, NUM_BLOCKS + 2))
    def allocate(self, count: int) -> None:
        free = self.pool.num_free
        self.evicted.clear()
        if count > free:
            with pytest.raises(OutOfBlocksError):
                self.pool.allocate(count)
            assert self.pool.num_free == free
            assert self.evicted == []
            return
        blocks = self.pool.allocate(count)
        assert len(set(blocks)) == count
        assert not set(blocks) & {block for holder in self.holders for block in holder}
        assert set(self.evicted) == self.cached & set(blocks)
        self.cached -= set(blocks)
        self.holders.append(blocks)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), cache=st.booleans())
    def release(self, data: st.DataObject, cache: bool) -> None:
        blocks = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        if cache:
            self.cached.update(blocks)
        self.pool.release(blocks, self.cached.__contains__)

    @precondition(lambda self: self.cached)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.cached)))
        self.pool.share(block)
        self.holders.append([block])

    @rule()
    def double_release_is_refused(self) -> None:
        free = [block for block in range(NUM_BLOCKS) if self.pool.count(block) == 0]
        if free:
            with pytest.raises(ValueError, match="nobody holds it"):
                self.pool.release([free[0]])

    @invariant()
    def counts_are_the_number_of_holders(self) -> None:
        held = [block for holder in self.holders for block in holder]
        for block in range(NUM_BLOCKS):
            assert self.pool.count(block) == held.count(block)
        assert self.pool.num_free == NUM_BLOCKS - len(set(held))


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40)


def test_blank_blocks_go_before_cached_ones_and_cached_prefixes_from_their_end() -> None:
    evicted: list[int] = []
    pool = BlockPool(4, evicted.append)
    first = pool.allocate(2)
    pool.release(first, lambda _: True)
    second = pool.allocate(2)
    assert evicted == []
    assert not set(first) & set(second)
    assert pool.allocate(1) == [first[1]]
    assert evicted == [first[1]]
