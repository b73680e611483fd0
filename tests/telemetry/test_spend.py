"""Dollars so far."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from outcrop.cost.served import Deployment, spend
from outcrop.telemetry.spend import Spend, TokenPrice

DAY = datetime.date(2026, 11, 28)


def values(spend: Spend) -> dict[str, float]:
    return {sample.name: sample.value for family in spend.collect() for sample in family.samples}


def test_what_a_server_has_cost_and_how_old_its_prices_are_while_it_runs() -> None:
    hours, days = iter((0.0, 3600.0, 7200.0)), iter((1, 90))
    told = Spend(
        2.0,
        {"m": [TokenPrice("b", input=1.0, output=4.0, cached=0.5)]},
        DAY,
        clock=lambda: next(hours),
        today=lambda: DAY + datetime.timedelta(days=next(days)),
    )
    told.count("m", 1_000_000, 200_000, 500_000)
    found = values(told)
    assert found["outcrop_cost_usd_total"] == pytest.approx(2)
    assert found["outcrop_bedrock_equivalent_usd_total"] == pytest.approx(0.8 + 0.1 + 2)
    assert found["outcrop_price_age_days"] == 1
    found = values(told)
    assert found["outcrop_cost_usd_total"] == pytest.approx(4)
    assert found["outcrop_price_age_days"] == 90


def test_the_oldest_price_in_use_counts(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'sources = { old = { name = "a contract", url = "", date = 2001-02-03 } }\n'
        '[[instances]]\ninstance = "inf2.xlarge"\nregion = "us-east-1"\noption = "on-demand"\n'
        'usd_per_hour = 0.5\nsource = "old"\n'
    )
    used = spend(Deployment("inf2.xlarge", "on-demand", 2, "us-east-1", path), [])
    assert values(used)["outcrop_price_age_days"] == (datetime.date.today() - datetime.date(2001, 2, 3)).days
    unused = spend(Deployment("inf2.8xlarge", "on-demand", 2, "us-east-1", path), [])
    assert values(unused)["outcrop_price_age_days"] < values(used)["outcrop_price_age_days"]
