"""Break-even, bills and what they depend on, from the shipped prices."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop.cost.compare import HOURS_A_MONTH, Comparison, Question, break_even, compare
from outcrop.cost.prices import PriceBook, PurchaseOption, shipped
from outcrop.cost.throughput import Throughput, ThroughputError, find_published, read_measured
from outcrop.cost.workload import Workload, WorkloadError

DAY = datetime.date(2026, 11, 28)
LLAMA_8B = "meta.llama3-1-8b-instruct-v1:0"
BOOK = PriceBook(shipped())

# Output tokens a second at which an instance costs what Bedrock does, with 6 and with 1 input token for each,
# against the models below. Worked out by hand from the price lists, before there was a program.
AGAINST = (
    (LLAMA_8B, "standard"),
    (LLAMA_8B, "batch"),
    ("meta.llama3-8b-instruct-v1:0", "standard"),
    ("meta.llama3-3-70b-instruct-v1:0", "standard"),
    ("anthropic.claude-3-haiku-20240307-v1:0", "standard"),
)
TABLE: list[tuple[str, PurchaseOption, list[tuple[int, int | None]]]] = [
    ("inf2.xlarge", "on-demand", [(137, 479), (274, 957), (88, 234), (42, 146), (77, 140)]),
    ("inf2.xlarge", "reserved-1yr", [(86, 302), (172, 603), (55, 147), (26, 92), (48, 88)]),
    ("inf2.8xlarge", "on-demand", [(355, 1242), (710, 2485), (228, 607), (108, 380), (199, 364)]),
    ("inf2.8xlarge", "spot", [(114, 398), (227, 795), (73, 194), (35, 122), (64, 117)]),
    ("inf2.48xlarge", "on-demand", [(2341, 8195), (4683, 16390), (1502, 4007), (715, 2504), (1311, 2404)]),
    ("inf2.48xlarge", "reserved-1yr", [(1475, 5163), (2950, 10326), (947, 2524), (451, 1578), (826, 1514)]),
    ("inf2.48xlarge", "reserved-3yr", [(1012, 3540), (2023, 7081), (649, 1731), (309, 1082), (566, 1039)]),
    ("inf2.48xlarge", "spot", [(379, 1326), (758, 2652), (243, 648), (116, 405), (212, 389)]),
    ("trn1.32xlarge", "on-demand", [(3878, 13573), (7756, None), (2488, 6636), (1185, 4147), (2172, 3981)]),
    ("trn1.32xlarge", "reserved-3yr", [(1479, 5175), (2957, None), (949, 2530), (452, 1581), (828, 1518)]),
    ("g6.xlarge", "on-demand", [(145, 508), (290, 1016), (93, 248), (44, 155), (81, 149)]),
    ("p5.4xlarge", "on-demand", [(1241, 4343), (2482, 8687), (796, 2123), (379, 1327), (695, 1274)]),
]


def _answer(
    instance: str = "inf2.48xlarge",
    option: PurchaseOption = "on-demand",
    load: str = "in=1500,out=250",
    throughput: Throughput | None = None,
    utilisation: float | None = None,
) -> Comparison:
    question = Question(LLAMA_8B, instance, option, "us-east-1", Workload.parse(load), utilisation)
    return compare(question, BOOK, throughput, DAY)


@pytest.mark.parametrize(("instance", "option", "row"), TABLE)
def test_the_break_even_table(
    instance: str, option: PurchaseOption, row: list[tuple[int, int | None]]
) -> None:
    hourly = float(BOOK.instance(instance, "us-east-1", option).price.usd_per_hour)
    for (model, tier), (six, one) in zip(AGAINST, row, strict=True):
        price = BOOK.model(model, "us-east-1", tier).price
        assert round(break_even(hourly, price, 6)) == six
        assert one is None or round(break_even(hourly, price, 1)) == one


def test_at_the_break_even_rate_the_bills_are_equal_to_the_cent() -> None:
    for instance, option, _ in TABLE:
        for load in ("in=1500,out=250", "in=512,out=512"):
            found = _answer(instance, option, load)
            for each in found.against:
                rate = each.break_even_output_tokens_per_s
                ratio = found.question.load.ratio
                bill = rate * (ratio * each.rate.input + each.rate.output) / 1e6 * 3600 * HOURS_A_MONTH
                assert bill == pytest.approx(found.monthly, abs=0.005)


@pytest.mark.parametrize(
    ("instance", "option", "output", "cost"),
    [
        ("inf2.48xlarge", "on-demand", 859.1, 4.20),
        ("inf2.48xlarge", "reserved-1yr", 759.2, 2.99),
        ("inf2.48xlarge", "reserved-3yr", 522.0, 2.98),
        ("trn1.32xlarge", "on-demand", 1142.7, 5.23),
        ("trn1.32xlarge", "reserved-1yr", 770.2, 4.77),
        ("inf2.48xlarge", "on-demand", 1226, 2.94),
    ],
)
def test_usd_for_a_million_output_tokens(
    instance: str, option: PurchaseOption, output: float, cost: float
) -> None:
    found = _answer(instance, option, throughput=Throughput(output, 1500, 250, "published", ""))
    assert found.own_output_price == pytest.approx(cost, abs=0.005)


def test_an_instance_on_demand_does_not_beat_bedrock_and_on_spot_it_does() -> None:
    throughput = find_published("Llama-3.1-8B", "inf2.48xlarge", 6)
    assert throughput is not None
    assert throughput.output_tokens_per_s == 1226
    dear, cheap = _answer(throughput=throughput), _answer(option="spot", throughput=throughput)
    assert dear.own_blended_at(1) == pytest.approx(0.42, abs=0.005)
    assert cheap.own_blended_at(1) == pytest.approx(0.07, abs=0.005)
    assert dear.against[0].needed == pytest.approx(2341 / 1226, abs=0.001)
    assert cheap.against[0].needed == pytest.approx(379 / 1226, abs=0.001)


def test_bills_and_instances_of_a_load() -> None:
    """10 requests a second of 250 tokens take three instances of 1226 tokens a second."""
    throughput = Throughput(1226, 1500, 250, "measured", "")
    found = _answer(load="rps=10,in=1500,out=250", throughput=throughput)
    assert found.instances == 3
    assert found.utilisation == pytest.approx(2500 / (3 * 1226))
    assert found.monthly == pytest.approx(3 * 12.98127 * 730)
    assert found.against[0].monthly == pytest.approx(10 * 3600 * 730 * 1750 * 0.22 / 1e6)
    # What is paid is what the tokens cost, however it is told.
    for each in found.against:
        assert each.own is not None
        of_inputs, of_outputs = 1500 * each.own.input, 250 * each.own.output
        assert 10 * 3600 * 730 * (of_inputs + of_outputs) / 1e6 == pytest.approx(found.monthly)
        assert each.own.input / each.own.output == pytest.approx(each.rate.input / each.rate.output)


def test_half_as_busy_has_to_make_twice_the_tokens_and_costs_twice_as_much() -> None:
    throughput = Throughput(1000, 1500, 250, "measured", "")
    whole, half = (_answer(throughput=throughput, utilisation=share) for share in (1.0, 0.5))
    assert half.against[0].break_even_output_tokens_per_s == pytest.approx(
        2 * whole.against[0].break_even_output_tokens_per_s
    )
    assert half.own_output_price == pytest.approx(2 * (whole.own_output_price or 0))
    assert whole.energy is not None
    assert half.energy is not None
    assert half.energy.kwh_per_million == whole.energy.kwh_per_million


def test_energy_says_what_it_assumes() -> None:
    energy = _answer(throughput=Throughput(1226, 1500, 250, "published", "")).energy
    assert energy is not None
    # 12 chips of 175 W make 1226 tokens a second: 0.48 kWh a million, and 15 % of that for cooling.
    assert energy.kwh_per_million == pytest.approx(0.476 * 1.15, abs=0.001)
    assert "175 W" in energy.assumption
    assert "AWS publishes none" in energy.assumption


def test_a_throughput_of_another_mixture_is_pointed_out() -> None:
    found = _answer(load="in=100,out=1000", throughput=Throughput(1226, 1500, 250, "published", ""))
    assert any("6 input tokens for each output token, the load of 0.1" in each for each in found.warnings)


TRACES = {
    "own.jsonl": '{"timestamp_ms": 0, "input_tokens": 100, "output_tokens": 10}\n'
    '{"timestamp_ms": 2000, "input_tokens": 300, "output_tokens": 30}\n',
    "azure.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,100,10\n2023-11-16 18:15:48.6805900,300,30\n",
    "burst.csv": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,100,10,110,API log\n7,ChatGPT,300,30,330,API log\n",
}


@pytest.mark.parametrize("name", TRACES)
def test_loads_from_traces(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TRACES[name])
    load = Workload.parse(str(tmp_path / name))
    assert (load.input_tokens, load.output_tokens, load.rps) == (200, 20, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rps=1", "write rps=2,in=1500,out=250"),
        ("rps=1,in=x,out=2", "write rps=2,in=1500,out=250"),
        ("rps=0,in=1,out=2", "each number has to be more than 0"),
        ("in=1,out=nan", "each number has to be more than 0"),
        ("nowhere.jsonl", "No such file"),
    ],
)
def test_loads_that_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(WorkloadError, match=problem):
        Workload.parse(text)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"completed": 29}, "29 requests were answered"),
        ({"errors": 2}, "2 of 102 requests failed"),
        ({"output_tokens_per_s": 0}, "no tokens were counted"),
        ({"kind": "simulated", "instance": "inf2.48xlarge"}, "it is of inf2.48xlarge, not of inf2.xlarge"),
        ({"output_tokens_per_s": None}, "what `outcrop bench --json` wrote"),
    ],
)
def test_measurements_that_say_nothing_are_refused(
    tmp_path: Path, more: dict[str, object], problem: str
) -> None:
    figures = {
        "output_tokens_per_s": 900,
        "mean_input_tokens": 1500,
        "mean_output_tokens": 250,
        "completed": 100,
    }
    path = tmp_path / "m.json"
    path.write_text(json.dumps(figures))
    assert read_measured(path, "inf2.xlarge").kind == "measured"
    path.write_text(json.dumps(figures | more))
    with pytest.raises(ThroughputError, match=re.escape(problem)):
        read_measured(path, "inf2.xlarge")


COMMAND = ["cost", "compare", "--model", "Llama-3.1-8B", "--instance", "inf2.48xlarge"]


def test_the_command_in_json() -> None:
    result = CliRunner().invoke(
        app, [*COMMAND, "--option", "spot", "--load", "rps=3,in=1500,out=250", "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["break_even_output_tokens_per_s"] == pytest.approx(2.1 / 3600 / (7 * 0.22e-6))
    assert found["throughput"]["kind"] == "published"
    assert found["instances"] == 1
    assert found["against"][0]["utilisation_needed"] == pytest.approx(0.309, abs=0.001)
    assert {each["sha256"] for each in found["prices"]} > {""}


def test_the_command_with_a_simulation() -> None:
    options = ["--from", "simulate", "--load", "in=1500,out=250", "--json"]
    result = CliRunner().invoke(app, [*COMMAND, *options])
    assert result.exit_code == 0, result.output
    throughput = json.loads(result.stdout)["throughput"]
    assert throughput["kind"] == "simulated"
    # A measurement of this shape made 1226; a simulation that is half or twice that is broken.
    assert 613 < throughput["output_tokens_per_s"] < 2452
    assert "not yet run on a device" in throughput["source"]


def test_the_command_for_people_names_the_kind_of_each_figure() -> None:
    result = CliRunner().invoke(app, [*COMMAND, "--load", "rps=3,in=1500,out=250"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "Throughput (published): 1226 output tokens/s" in result.stdout
    assert "Energy, an estimate" in result.stdout
    assert "days old" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("llama3-1-8b  "))
    assert row.split() == ["llama3-1-8b", "0.22/0.22", "0.687/0.687", "2,341", "9.37", "never", "$3,035"]


def test_the_report_needs_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "report.html"
    options = ["--load", "rps=3,in=1500,out=250", "--html", str(path), "--json"]
    result = CliRunner().invoke(app, [*COMMAND, *options])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["instances"] == 1
    report = path.read_text()
    assert report.count("<svg") == 3
    assert "so Bedrock is cheaper at every load" in report
    # Namespaces of SVG are names, not addresses that anything is fetched from.
    assert not re.search(r"""<(?:script|link|img|iframe)|url\(['"]?http|@import""", report)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ["--load", "in=1,out=1", "--option", "hourly"],
            "--option hourly: there are on-demand, reserved-1yr",
        ),
        (["--load", "in=1,out=1", "--utilisation", "0"], "--utilisation 0.0: it is a share"),
        (["--load", "in=1,out=1", "--from", "nowhere.json"], "--from nowhere.json: No such file"),
        (["--load", "in=1,out=1", "--against", "gpt-9"], "there is no price of gpt-9"),
        (
            ["--load", "in=1,out=1", "--instance", "inf2.xlarge", "--from", "published"],
            "there are no figures of",
        ),
        (
            ["--load", "in=1,out=1", "--model", "Llama-9", "--from", "simulate"],
            "only Llama 3 text models on inf2",
        ),
        (["--load", "in=1,out=1", "--model", "Llama-9"], "Bedrock has no price of Llama-9; name models"),
        (["--load", "in=1,out=1", "--prices", "nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_the_command_says_what_is_wrong(options: list[str], problem: str) -> None:
    result = CliRunner().invoke(app, [*COMMAND, *options])
    assert result.exit_code == 2
    assert problem in result.stderr.replace("\n", " ")
