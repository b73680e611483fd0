"""Requests and tokens a minute, by a clock that the test turns."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcrop.api.auth.principal import Principal
from outcrop.api.auth.quota import Quota, TokenBucket
from outcrop.api.errors import ApiError

from .world import World, signed

REQUESTS = "Too many requests, please wait before trying again."
TOKENS = "Too many tokens, please wait before trying again."


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def admit(quota: Quota | Principal) -> None:
    asyncio.run(quota.admit())


def admit_tokens(quota: Quota, tokens: int) -> None:
    asyncio.run(quota.admit_tokens(tokens))


def throttled(quota: Quota, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        admit(quota)
    assert (caught.value.kind.code, caught.value.kind.status) == ("ThrottlingException", 429)
    assert caught.value.message == words


def test_requests_a_minute() -> None:
    clock = Clock()
    quota = Quota(3, None, clock)
    for _ in range(3):
        admit(quota)
    throttled(quota, REQUESTS)
    clock.now += 19.9
    throttled(quota, REQUESTS)
    clock.now += 0.2
    admit(quota)
    throttled(quota, REQUESTS)
    clock.now += 3600  # no more than a minute's worth is saved up
    for _ in range(3):
        admit(quota)
    throttled(quota, REQUESTS)


def test_tokens_a_minute() -> None:
    clock = Clock()
    quota = Quota(None, 60, clock)
    admit_tokens(quota, 50)
    with pytest.raises(ApiError, match=TOKENS):
        admit_tokens(quota, 11)
    admit_tokens(quota, 10)
    throttled(quota, TOKENS)
    clock.now += 1
    admit(quota)
    quota.charge(31)  # an answer goes on to its end, and those after it pay
    clock.now += 30
    throttled(quota, TOKENS)
    clock.now += 1
    admit(quota)
    with pytest.raises(ApiError, match=TOKENS):
        admit_tokens(quota, 61)


def test_no_limit() -> None:
    quota = Quota(None, None, Clock())
    admit(quota)
    admit_tokens(quota, 10**9)
    quota.charge(10**9)
    admit(quota)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5)), max_size=60), st.integers(1, 20))
def test_never_more_than_the_allowance(steps: list[tuple[float, int]], per_minute: int) -> None:
    clock = Clock()
    bucket = TokenBucket(per_minute, clock)
    begun, taken = clock.now, 0
    for wait, amount in steps:
        clock.now += wait
        taken += amount if bucket.take(amount) else 0
        assert taken <= per_minute + (clock.now - begun) * per_minute / 60 + 1e-6


def test_a_clock_that_stands_still_or_steps_back() -> None:
    clock = Clock()
    bucket = TokenBucket(1, clock)
    assert bucket.take(1)
    clock.now -= 50
    assert not bucket.take(1)


def test_a_key_has_one_allowance_however_it_calls(world: World) -> None:
    now = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)
    _, credentials, bearer = world.key(rpm=2)
    _, _, other = world.key(rpm=2)
    admit(world.accept(signed(now, credentials)))
    admit(world.bearer(bearer))
    for principal in (world.accept(signed(now, credentials)), world.bearer(bearer)):
        throttled(principal.quota, REQUESTS)
    admit(world.bearer(other))
    world.pass_time(seconds=30)
    admit(world.bearer(bearer))
