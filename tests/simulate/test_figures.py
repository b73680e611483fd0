"""SLOs and percentiles, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from virtual import MS, tiny

from outcrop.bench.call import Call
from outcrop.bench.figures import figures as measured_figures
from outcrop.engine.stats import EngineStats
from outcrop.simulate.figures import figures
from outcrop.simulate.fleet import Run
from outcrop.simulate.lives import NEVER, Lives
from outcrop.simulate.replica import Usage
from outcrop.simulate.slo import PRESETS, Slo, parse_slo
from outcrop.simulate.trace import Trace


def run() -> Run:
    """Four requests, of which the last was refused."""
    numbers = np.arange(4, dtype=np.int64)
    lives = Lives(Trace("by hand", numbers * 100 * MS, np.full(4, 10), np.full(4, 5)), refused=1)
    lives.begun[:3] = lives.arrival[:3] + 10 * MS
    lives.first[:3] = lives.arrival[:3] + np.array([100, 200, 600]) * MS
    lives.last[:3] = lives.first[:3] + np.array([80, 160, 40]) * MS
    lives.tokens[:3] = [5, 5, 1]
    usage = Usage(busy_prefill=100 * MS, busy_decode=320 * MS, lanes_prefill=40, used_prefill=30, kv_peak=16)
    stats = EngineStats(preemptions=2, prefill_steps=3, decode_steps=8)
    return Run(tiny(), lives, (usage,), (stats,), end=840 * MS)


def test_figures():
    found = figures(run(), Slo(ttft=250, tpot=30, share=0.5), dollars_per_hour=3.6)
    assert (found.requests, found.refused) == (3, 1)
    assert found.seconds == pytest.approx(0.84)  # from 0 to 200 + 600 + 40 ms
    assert (found.ttft.p50, found.ttft.p90, found.ttft.p99) == (200, 600, 600)
    # 80 / 4, 160 / 4, and one token has no time between tokens; that counts as 40 over one.
    assert (found.tpot.p50, found.tpot.p99) == (40, 40)
    assert found.queue.p50 == 10
    # Only the first keeps to both limits: the second is too slow, the third too late, the fourth refused.
    assert (found.good_share, found.goodput) == (0.25, pytest.approx(1 / 0.84))
    assert not found.holds_slo
    assert found.output_tokens_per_s == pytest.approx(11 / 0.84)
    assert found.input_tokens_per_s == pytest.approx(30 / 0.84)
    assert found.busy == pytest.approx(0.5)
    assert found.prefill_padding == 0.25
    assert found.decode_padding == 0
    assert found.kv_peak == 0.25
    # 0.1 cent a second over 11 / 0.84 tokens a second.
    assert found.per_million_output == pytest.approx(0.001 / (11 / 0.84) * 1e6)
    assert found.per_million_tokens == pytest.approx(0.001 / (41 / 0.84) * 1e6)


def test_percentiles_are_those_of_a_measurement():
    of_two, measured = run(), [Call(0, [0.1, 0.18], 5, ended=1), Call(0, [0.2, 0.36], 5, ended=1)]
    of_two.lives.last[2] = NEVER
    found, there = figures(of_two, Slo(1, 1)), measured_figures(measured)
    assert (found.ttft.p50, found.tpot.p50) == (200, 40)
    assert (there.ttft_ms.p50, there.tpot_ms.p50) == (pytest.approx(200), pytest.approx(40))


def test_a_share_holds_or_not():
    assert figures(run(), Slo(700, 50, share=0.75)).holds_slo
    assert not figures(run(), Slo(700, 50, share=0.76)).holds_slo
    assert figures(run(), Slo(700, 50)).per_million_output is None


def test_limits_are_kept_when_they_are_reached():
    slo = Slo(100, 10)
    ttft, tpot = np.array([100.0, 100.1, 1.0, np.nan]), np.array([10.0, 1.0, 10.1, 1.0])
    assert slo.met(ttft, tpot).tolist() == [True, False, False, False]


def test_slos_are_read():
    assert parse_slo("mlperf-8b-interactive") is PRESETS["mlperf-8b-interactive"]
    assert parse_slo("ttft=500, tpot=50") == Slo(500, 50, 0.99)
    assert parse_slo("ttft=500,tpot=50,share=0.9") == Slo(500, 50, 0.9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", "'fast' is not understood; use ttft=MS,tpot=MS"),
        ("ttft=1", "it lacks ttft or tpot"),
        ("ttft=1,tpot=x", "'tpot=x' is not understood"),
        ("ttft=-1,tpot=2", "ttft is -1 ms; it has to be above 0"),
        ("ttft=1,tpot=2,share=99", "share is 99; it is a part"),
    ],
)
def test_slos_that_mean_nothing(text, said):
    with pytest.raises(ValueError, match=said):
        parse_slo(text)
