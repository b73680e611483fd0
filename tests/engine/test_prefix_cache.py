"""Invariants 5 and 6: what the prefix cache serves is what the prompt says, whatever the hashes do."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outcrop.engine.block_pool import BlockPool
from outcrop.engine.prefix_cache import BlockKey, PrefixCache

SIZE = 2
prompts = st.lists(st.integers(0, 2), min_size=1, max_size=9)
salts = st.sampled_from(["", "tenant-a", "tenant-b"])


class CacheMachine(RuleBasedStateMachine):
    """Prompts come, match, register their full blocks and leave. The model remembers, for every block,
    the whole token prefix and salt whose KV it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(10)
        self.cache = PrefixCache(self.pool, SIZE)
        self.contents: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.live: list[list[int]] = []

    @rule(tokens=prompts, salt=salts)
    def run_prompt(self, tokens: list[int], salt: str) -> None:
        matched = self.cache.match(tokens, salt)
        assert len(matched) * SIZE < len(tokens)
        for index, block in enumerate(matched):
            assert self.contents[block] == (salt, tuple(tokens[: (index + 1) * SIZE]))
            self.pool.share(block)
        needed = -(-len(tokens) // SIZE) - len(matched)
        if needed > self.pool.num_free:
            self.pool.release(matched, self.cache.is_cached)
            return
        blocks = matched + self.pool.allocate(needed)
        chain = self.cache.number(matched[-1]) if matched else salt
        for index in range(len(matched), len(tokens) // SIZE):
            block_tokens = tokens[index * SIZE : (index + 1) * SIZE]
            self.contents[blocks[index]] = (salt, tuple(tokens[: (index + 1) * SIZE]))
            chain = self.cache.register(chain, block_tokens, blocks[index])
        self.live.append(blocks)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.pool.release(self.live.pop(data.draw(st.integers(0, len(self.live) - 1))), self.cache.is_cached)

    @invariant()
    def bookkeeping_agrees(self) -> None:
        assert len(self.cache) == sum(self.cache.is_cached(block) for block in range(10))


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_prompt_is_found_again_but_its_last_token_is_not() -> None:
    pool = BlockPool(4)
    cache = PrefixCache(pool, SIZE)
    blocks = pool.allocate(2)
    number = cache.register("", [1, 2], blocks[0])
    cache.register(number, [3, 4], blocks[1])
    assert cache.match([1, 2, 3, 4, 5], "") == blocks
    assert cache.match([1, 2, 3, 4], "") == blocks[:1]
    assert cache.match([1, 2, 9, 9, 9], "") == blocks[:1]
    assert cache.match([1, 2, 3, 4, 5], "another tenant") == []


def test_colliding_hashes_cost_time_but_never_serve_another_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockKey, "__hash__", lambda self: 7)
    pool = BlockPool(8)
    cache = PrefixCache(pool, SIZE)
    blocks = pool.allocate(4)
    first = cache.register("", [1, 2], blocks[0])
    second = cache.register("", [3, 4], blocks[1])
    cache.register(first, [5, 6], blocks[2])
    cache.register(second, [5, 6], blocks[3])
    assert cache.match([1, 2, 5, 6, 0], "") == [blocks[0], blocks[2]]
    assert cache.match([3, 4, 5, 6, 0], "") == [blocks[1], blocks[3]]
    assert cache.match([5, 6, 5, 6, 0], "") == []


def test_a_child_of_an_evicted_parent_is_not_served_under_the_parents_successor() -> None:
    pool = BlockPool(2)
    cache = PrefixCache(pool, SIZE)
    parent, child = pool.allocate(2)
    cache.register(cache.register("", [1, 2], parent), [3, 4], child)
    pool.release([parent], cache.is_cached)
    (reused,) = pool.allocate(1)  # evicts the parent, whose child is still held
    cache.register("", [7, 8], reused)
    assert cache.match([7, 8, 3, 4, 0], "") == [reused]
