"""How many tenants the metrics tell apart."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from outcrop.telemetry.metrics import Metrics


def test_beyond_a_hundred_tenants_new_ones_are_one_and_known_ones_stay_themselves() -> None:
    metrics = Metrics({})
    for number in range(150):
        metrics.generation("m", f"t{number}" if number else "", 1, 0.0)
    for tenant in ("", "t1", "t149"):
        metrics.generation("m", tenant, 1, 0.0)
    (family,) = (
        each
        for each in text_string_to_metric_families(metrics.render("")[0].decode())
        if each.name == "outcrop_requests_awaiting_first_token"
    )
    waiting = {sample.labels["tenant"]: sample.value for sample in family.samples}
    assert (waiting["-"], waiting["t1"], waiting["t2"]) == (2, 2, 1)
    assert waiting["other"] == 51
    assert len(waiting) == 101
