"""Leaps change nothing that a run step by step would show."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from virtual import request, tiny

from outcrop.simulate.fleet import Run, simulate
from outcrop.simulate.leap import Leap
from outcrop.simulate.machine import make_machine
from outcrop.simulate.serving import SERVINGS, Ahead, Serving
from outcrop.simulate.step_time import step_model
from outcrop.simulate.trace import ClosedLoop, Lengths, Trace, closed_loop, poisson

NONE_AHEAD = Serving("none ahead", SERVINGS["interleave"].policy, ahead=Ahead.NONE)


def everything(run: Run) -> tuple[object, ...]:
    lives = run.lives
    columns = (lives.arrival, lives.begun, lives.first, lives.last, lives.longest, lives.tokens)
    stats = [tuple(getattr(each, name) for name in each.__struct_fields__) for each in run.stats]
    return *(column.tolist() for column in columns), [asdict(each) for each in run.usage], stats, run.end


def assert_same(machine, load: Trace | ClosedLoop) -> None:
    assert everything(simulate(machine, load)) == everything(simulate(machine, load, leaping=False))


@pytest.mark.parametrize("serving", [*SERVINGS.values(), NONE_AHEAD], ids=lambda serving: serving.name)
@pytest.mark.parametrize("seed", range(2))
def test_small_machines(serving, seed):
    lengths = Lengths(10, 20, 0.6, 0.8, longest=30)
    # Room for all, for two thirds, and for little more than one: requests are preempted there.
    for blocks in (64, 40, 18):
        machine = tiny(serving, rows=4, blocks=blocks, replicas=1 + seed, decode_ms=10 - 6 * seed)
        assert_same(machine, poisson(12, 16, lengths, seed, burstiness=0.5))
        assert_same(machine, closed_loop(5, 16, lengths, seed, think=0.02 * seed))


@pytest.mark.parametrize("name", ["paced", "vllm-neuron"])
def test_an_instance(name):
    lengths = Lengths(600, 60, 1.0, 0.7, longest=4000)
    for instance, tp, rate in (("inf2.xlarge", 2, 1.0), ("inf2.48xlarge", 8, 8.0)):
        machine = make_machine(request(instance, tp), SERVINGS[name], step_model())
        assert_same(machine, poisson(rate, 20, lengths, 3))


def test_a_leap_ends_where_steps_would():
    leap = Leap(
        rows=np.arange(2), total=np.array([5, 9]), bucket=tiny().buckets[0], count=5, start=100,
        first_end=130, period=20, pending_end=128,
    )  # fmt: skip
    assert [leap.start_of(number) for number in range(4)] == [100, 130, 150, 170]
    assert leap.next_start == 210
    assert [leap.begun_before(time) for time in (100, 101, 130, 131, 150, 151, 10_000)] == [
        0,
        1,
        1,
        2,
        2,
        3,
        5,
    ]
    assert leap.end_of(2) == 168


def test_leaps_are_taken():
    """Else the comparisons above would compare nothing."""
    calls = 0
    original = Leap.take

    def counted(self: Leap, *given: object) -> None:
        nonlocal calls
        calls += 1
        original(self, *given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Leap, "take", counted)
        run = simulate(tiny(), poisson(2, 20, Lengths(4, 40), 1))
    assert calls > 10
    assert run.counted("decode_steps") > 10 * calls
