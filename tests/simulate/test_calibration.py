"""The step times: work counted by hand, prices as fitted, held-out measurements left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import median

import pytest
from virtual import CONFIG, request

from outcrop.simulate.anchors import anchors, skipped
from outcrop.simulate.calibration import calibrate, fit, predict, write_parameters
from outcrop.simulate.served import serve_anchors
from outcrop.simulate.step_time import parameters_data, step_model, work_of
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.instances import DMA_BANDWIDTH, INSTANCES
from outcrop_compile.plan import make_plan
from outcrop_compile.tensor_parallel import divide


@pytest.fixture(scope="module")
def found():
    return calibrate()


def test_work_of_a_decode_step():
    # Llama 3.1 8B on 8 cores: 4 query heads, one key-value head of 128 each; 8 rows of 64 blocks of 32
    # tokens.
    work = work_of(divide(CONFIG, 8), Bucket(StepKind.DECODE, 8, 1, 64), 32, "bfloat16", 192e9)
    assert work["row"] == 32 * 8
    assert work["span"] == 32 * 2048
    assert work["scores"] == 8 * 2048 * 32 * 4
    assert work["kv"] == pytest.approx(8 * 2048 * (2 * 32 * 128 * 2) / DMA_BANDWIDTH)
    assert work["stream"] == pytest.approx(7.505e9 * 2 / 8 / DMA_BANDWIDTH, rel=0.001)
    assert work["dequantise"] == 0


def test_work_of_a_prompt():
    work = work_of(divide(CONFIG, 8), Bucket(StepKind.PREFILL, 1, 512, 16), 32, "bfloat16", 192e9)
    # Two all-reduces a layer of 512 tokens of 4096 numbers, twice 7/8 of them over the links.
    assert work["exchange"] == pytest.approx(2 * 32 * 512 * 4096 * 2 * 2 * 7 / 8 / 192e9)
    one_chip = work_of(divide(CONFIG, 2), Bucket(StepKind.PREFILL, 1, 512, 16), 32, "bfloat16", 0)
    assert one_chip["exchange"] == 0
    assert one_chip["compute"] == pytest.approx(4 * work["compute"], rel=0.01)


def test_no_step_is_faster_than_the_roofline():
    plan = make_plan(request("inf2.8xlarge", 2))
    free = replace(step_model(), prices=dict.fromkeys(step_model().prices, 0.0))
    for each in plan.buckets:
        seconds = free.seconds(plan.layout, each.bucket, 32, "bfloat16", INSTANCES["inf2.8xlarge"])
        assert seconds == each.time.hbm


def test_what_is_shipped_is_what_is_fitted(found):
    shipped = step_model().prices
    assert found.prices == pytest.approx(dict(shipped), rel=1e-4)
    assert all(price >= 0 for price in shipped.values())


def test_half_is_held_out_of_the_fit(found):
    known = anchors()
    fitted = [anchor for anchor in known if anchor.fitted]
    assert 0.45 < len(fitted) / len(known) < 0.55
    # Whatever was measured there, the prices are the same.
    nonsense = [anchor if anchor.fitted else replace(anchor, ms=anchor.ms * 100) for anchor in known]
    assert fit([anchor for anchor in nonsense if anchor.fitted]) == found.prices
    # A family is predicted by the others: not by its own.
    first = known[0]
    others = fit([anchor for anchor in known if anchor.family != first.family])
    assert found.family_misses[0].ms == pytest.approx(predict(others, first))


def test_the_error_is_what_the_command_says(found):
    held = [abs(miss.error) for miss in found.misses if not miss.anchor.fitted]
    assert found.median_error() == median(held) < 0.12
    assert found.median_error(StepKind.DECODE) < 0.08
    assert abs(found.worst(1)[0].error) == max(held)
    assert skipped()


def test_closed_loops_that_nothing_was_fitted_to():
    loops = serve_anchors()
    assert median(abs(loop.output_error) for loop in loops) < 0.10


def test_parameters_of_ones_own(found, tmp_path):
    path = tmp_path / "own.json"
    write_parameters(found.prices | {"row": 1.0}, path)
    assert step_model(path).prices["row"] == 1
    data = parameters_data()
    del data["host"]["apply"]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"own.json: not a file of parameters"):
        step_model(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"own\.json"):
        step_model(path)
    with pytest.raises(ValueError, match="No such file"):
        step_model(tmp_path / "none.json")
