"""Which configuration is the cheapest that holds."""

from __future__ import annotations

import sys

import pytest
from virtual import request

from outcrop.simulate.plot import frontier_svg, save_frontier
from outcrop.simulate.serving import SERVINGS
from outcrop.simulate.slo import Slo
from outcrop.simulate.step_time import step_model
from outcrop.simulate.sweep import Grid, Sweep, share_of, sweep
from outcrop.simulate.trace import ClosedLoop, Lengths, closed_loop, poisson
from outcrop.svg import NoMatplotlib
from outcrop_compile.instances import INSTANCES

PRICES = {"inf2.xlarge": 0.7582, "inf2.48xlarge": 12.98127}
LENGTHS = Lengths(300, 20)


def swept(slo: Slo, *, most: int = 4, **axes: object) -> Sweep:
    chosen = [INSTANCES["inf2.xlarge"], INSTANCES["inf2.48xlarge"]]
    grid = Grid(instances=chosen, servings=[SERVINGS["paced"]], **axes)
    return sweep(
        request(),
        grid,
        lambda instances: poisson(1.0, 40 * instances, LENGTHS, 1),
        slo,
        step_model(),
        PRICES,
        most_instances=most,
    )


@pytest.fixture(scope="module")
def easy() -> Sweep:
    return swept(Slo(2000, 100, 0.9))


def test_the_cheapest_that_holds_is_found(easy):
    assert len(easy.candidates) == 2
    assert easy.best is not None
    assert easy.best.machine.plan.request.instance.name == "inf2.xlarge"
    assert easy.best.dollars_per_hour == pytest.approx(easy.best.instances * 0.7582)
    # One fewer does not hold.
    if easy.best.instances > 1:
        fewer = swept(Slo(2000, 100, 0.9), most=easy.best.instances - 1).candidates[0]
        assert not fewer.figures.holds_slo


def test_a_promise_that_only_the_dear_one_keeps():
    # 30 ms are less than one chip takes to read the weights.
    found = swept(Slo(2000, 30, 0.9), most=64)
    assert found.best is not None
    assert found.best.machine.plan.request.instance.name == "inf2.48xlarge"
    chip = found.candidates[0]
    # No number of chips would change that, so the search ends before it has tried all.
    assert not chip.figures.holds_slo
    assert chip.instances < 64


def test_a_promise_that_nobody_keeps():
    assert swept(Slo(1, 1), most=2).best is None


def test_every_combination_is_tried_or_refused_with_its_reason():
    found = swept(Slo(2000, 100, 0.9), most=1, tps=[2, 8], batches=[8, 16], chunks=[None, 64])
    assert len(found.candidates) + len(found.refused) == 16
    reasons = {refused.name: refused.why for refused in found.refused}
    assert "its degrees are 1, 2" in reasons["inf2.xlarge tp8 paced"]
    assert any("the narrowest prefill step has 128 tokens" in refused.why for refused in found.refused)


def test_the_frontier_is_of_those_that_nothing_beats(easy):
    frontier = easy.frontier()
    assert frontier == sorted(frontier, key=lambda each: -each.tokens_per_user)
    for each in frontier:
        assert not any(
            other.tokens_per_user > each.tokens_per_user
            and other.per_million_tokens < each.per_million_tokens
            for other in easy.candidates
        )


def test_instances_share_a_load():
    trace = poisson(4.0, 10, LENGTHS, 1)
    assert share_of(trace, 4).arrival.tolist() == trace.arrival[[0, 4, 8]].tolist()
    loop = share_of(closed_loop(10, 9, LENGTHS, 1), 4)
    assert isinstance(loop, ClosedLoop)
    assert (loop.users, len(loop.requests)) == (3, 3)


def test_the_plot_is_the_same_twice(easy, tmp_path):
    pytest.importorskip("matplotlib")
    assert frontier_svg(easy, "a title") == frontier_svg(easy, "a title")
    save_frontier(easy, tmp_path / "x.html", "a <title>")
    page = (tmp_path / "x.html").read_text()
    assert "<svg" in page
    assert "<title>a &lt;title&gt;</title>" in page
    with pytest.raises(ValueError, match=r"an \.svg or \.html file"):
        save_frontier(easy, tmp_path / "x.png", "a title")


def test_no_plot_without_matplotlib(easy, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NoMatplotlib, match=r"pip install 'outcrop\[plots\]'"):
        save_frontier(easy, tmp_path / "x.svg", "a title")
