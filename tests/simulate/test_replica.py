"""Virtual time against times worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from virtual import MS, tiny

from outcrop.engine.policy import Interleave, PrefillFirst
from outcrop.simulate.figures import figures
from outcrop.simulate.fleet import simulate
from outcrop.simulate.serving import SERVINGS, Ahead, Serving
from outcrop.simulate.slo import Slo
from outcrop.simulate.trace import ClosedLoop, Trace


def trace(*requests: tuple[float, int, int]) -> Trace:
    """Of (milliseconds, prompt, output)."""
    columns = np.array(requests, dtype=np.float64)
    return Trace("by hand", (columns[:, 0] * MS).astype(np.int64), *columns[:, 1:].astype(np.int64).T)


def times(run) -> list[tuple[float, float]]:
    return [(first / MS, last / MS) for first, last in zip(run.lives.first, run.lives.last, strict=True)]


def test_one_request():
    # Prefill is planned by 6 and runs to 26; its token is out at 28. The first decode step was submitted at 7
    # and runs to 36, the second, submitted at 29, to 46.
    run = simulate(tiny(), trace((5, 3, 3)))
    assert times(run) == [(28, 48)]
    assert run.lives.begun[0] == 6 * MS
    assert run.lives.longest[0] == 10 * MS
    assert (run.counted("prefill_steps"), run.counted("decode_steps")) == (1, 2)


@pytest.mark.parametrize(
    ("ahead", "last"),
    [
        # The first decode step has other rows than the prefill step: it starts at 26 + 4 and ends at 40.
        (Ahead.STEADY, 52),  # the second follows at once, to 50
        (Ahead.NONE, 56),  # the second starts at 44
    ],
)
def test_steps_that_wait_for_the_one_before(ahead, last):
    run = simulate(tiny(Serving("by hand", Interleave(), ahead=ahead)), trace((5, 3, 3)))
    assert times(run) == [(28, last)]


def test_depth_one_waits_for_the_host():
    # Prefill 6 to 26, applied by 28; decode 29 to 39, applied by 41.
    run = simulate(tiny(depth=1), trace((5, 3, 2)))
    assert times(run) == [(28, 41)]


def test_prompts_stall_answers_as_the_policy_says():
    requests = trace((0, 3, 4), (30, 3, 1), (30, 3, 1))
    after_each = simulate(tiny(rows=4), requests)
    first = simulate(tiny(Serving("prompts first", PrefillFirst()), rows=4), requests)
    # Steps of the first request: prefill to 21, decode to 31, 41; then two prompts of 20 ms, with a decode
    # step between them or after them.
    assert after_each.lives.longest[0] == 30 * MS
    assert first.lives.longest[0] == 50 * MS
    assert first.lives.first[2] < after_each.lives.first[2]


def test_a_long_prompt_takes_a_step_for_each_chunk():
    # 20 tokens in steps of 8, 8 and 4, one after the other from 1 on.
    run = simulate(tiny(), trace((0, 20, 1)))
    assert times(run) == [(63, 63)]
    assert run.used("lanes_prefill") == 24
    assert run.used("used_prefill") == 20


def test_who_does_not_fit_waits_and_who_never_fits_is_refused():
    run = simulate(tiny(rows=1), trace((0, 3, 2), (0, 3, 2), (0, 64, 1)))
    assert run.lives.begun[1] > run.lives.last[0]
    assert run.lives.refused == 1
    found = figures(run, Slo(1e6, 1e6))
    assert (found.requests, found.refused) == (2, 1)
    assert found.good_share == pytest.approx(2 / 3)


def test_the_cache_fills_up_and_someone_is_computed_again():
    # 10 blocks of 4 tokens: two requests of 24 tokens are admitted and cannot both grow to the end.
    run = simulate(tiny(blocks=16, rows=2), trace((0, 8, 40), (0, 8, 40)))
    assert run.counted("preemptions") > 0
    assert run.lives.tokens.tolist() == [40, 40]
    assert max(usage.kv_peak for usage in run.usage) <= 16


def test_requests_go_where_the_least_tokens_are():
    run = simulate(tiny(replicas=2), trace((0, 8, 8), (1, 3, 2), (2, 3, 2)))
    # The third goes to the second replica too, which has 5 tokens in flight and not 16. There it waits for
    # the second's prompt, by 24, a decode step having been planned before it came.
    assert run.lives.begun.tolist() == [1 * MS, 2 * MS, 25 * MS]
    assert [stats.prompt_tokens for stats in run.stats] == [8, 6]


def test_a_closed_loop_keeps_so_many_in_flight():
    requests = trace(*((0, 3, 2) for _ in range(4)))
    run = simulate(tiny(), ClosedLoop(requests, users=1, think=5 * MS))
    # Each: prefill, one decode step, 1 ms to schedule and 2 to apply: 33 ms; 5 to think.
    assert run.lives.arrival.tolist() == [0, 38 * MS, 76 * MS, 114 * MS]
    assert (run.lives.last - run.lives.arrival == 33 * MS).all()
    busy = simulate(tiny(), ClosedLoop(requests, users=2))
    assert busy.end < run.end


def test_users_share_the_replicas():
    requests = trace(*((0, 3, 2) for _ in range(6)))
    run = simulate(tiny(replicas=2), ClosedLoop(requests, users=3))
    assert sorted(stats.prompt_tokens for stats in run.stats) == [9, 9]
    alone = simulate(tiny(replicas=2), ClosedLoop(requests, users=1))
    assert sorted(stats.prompt_tokens for stats in alone.stats) == [0, 18]


def test_the_plug_in_admits_only_what_fits_at_its_longest():
    from virtual import request

    from outcrop.simulate.machine import make_machine
    from outcrop.simulate.step_time import step_model

    chip = request("inf2.xlarge", 2)
    ours = make_machine(chip, SERVINGS["paced"], step_model())
    theirs = make_machine(chip, SERVINGS["vllm-neuron"], step_model())
    assert ours.capabilities.max_rows == 32
    assert theirs.capabilities.max_rows == theirs.plan.kv_tokens // 8192
