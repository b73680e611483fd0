"""Prices that come with Outcrop, the user's, and what no price list may say."""

from __future__ import annotations

import datetime
import hashlib
import json
from decimal import Decimal
from pathlib import Path

import pytest

from outcrop.cost import prices
from outcrop.cost.prices import REFERENCE_REGION, PriceBook, load_prices, read_file, shipped
from outcrop.cost.sanity import PriceError

DAY = datetime.date(2026, 11, 28)
LLAMA_8B = "meta.llama3-1-8b-instruct-v1:0"


@pytest.fixture
def book() -> PriceBook:
    return PriceBook(shipped())


def _file(folder: Path, bedrock: list[dict[str, object]], instances: list[dict[str, object]]) -> Path:
    path = folder / "prices.json"
    source = {"name": "a contract", "url": "", "date": "2026-11-01"}
    path.write_text(json.dumps({"sources": {"s": source}, "bedrock": bedrock, "instances": instances}))
    return path


def _model(model: str, output: float, **more: object) -> dict[str, object]:
    row = {"model": model, "region": "us-east-1", "tier": "standard", "input": 0.1, "source": "s"}
    return row | {"output": output} | more


def test_shipped_files_have_sources_dates_and_the_hashes_that_are_written_down(book: PriceBook) -> None:
    assert len(book.bedrock) > 200
    assert len(book.instances) > 100
    assert {row.region for row, _ in book.imports} >= {"us-east-1", "us-west-2", "eu-central-1"}
    for _, source in (*book.bedrock, *book.instances, *book.imports):
        assert source.name
        assert source.url.startswith("https://")
        assert datetime.date(2025, 1, 1) < source.date < DAY
    folder = Path(prices.__file__).parent / "data"
    for name, sha256 in json.loads((folder / "manifest.json").read_bytes()).items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256


def test_an_altered_installation_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path(prices.__file__).parent / "data"
    for name in ("manifest.json", "bedrock.json", "ec2.json"):
        (tmp_path / name).write_bytes((data / name).read_bytes().replace(b"0.7582", b"0.0582"))
    monkeypatch.setattr(prices, "_SHIPPED", tmp_path)
    with pytest.raises(PriceError, match=r"ec2\.json of this installation was changed; put prices"):
        shipped()


@pytest.mark.parametrize(
    ("model", "region", "tier", "prices_", "stands_in"),
    [
        (LLAMA_8B, "us-east-1", "standard", ("0.22", "0.22"), False),
        (LLAMA_8B, "us-east-1", "batch", ("0.11", "0.11"), False),
        (f"us.{LLAMA_8B}", "us-east-1", "standard", ("0.22", "0.22"), False),
        ("arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-70b-instruct-v1:0", "eu-west-1", "standard",
         ("2.86", "3.78"), False),
        ("eu.meta.llama3-2-1b-instruct-v1:0", "us-east-1", "standard", ("0.13", "0.13"), False),
        ("us.anthropic.claude-haiku-5-5", "us-east-1", "standard", ("0.11", "0.55"), False),
        ("anthropic.claude-haiku-5-5", "us-east-1", "standard", ("0.1", "0.5"), False),
        ("openai.gpt-oss-20b-1:0", "us-east-1", "priority", ("0.1225", "0.525"), False),
        ("amazon.titan-embed-text-v2:0", "us-east-1", "standard", ("0.02", "0"), False),
        ("meta.llama3-3-70b-instruct-v1:0", "eu-west-1", "standard", ("0.72", "0.72"), True),
    ],
)  # fmt: skip
def test_prices_of_models(
    book: PriceBook, model: str, region: str, tier: prices.Tier, prices_: tuple[str, str], stands_in: bool
) -> None:
    quote = book.model(model, region, tier)
    assert (quote.price.input, quote.price.output) == tuple(map(Decimal, prices_))
    assert quote.stands_in == stands_in
    assert any(REFERENCE_REGION in each for each in quote.warnings(DAY)) == stands_in


def test_the_price_that_public_lists_have_wrong_is_not_among_them(book: PriceBook) -> None:
    keys = {(row.model, row.region) for row, _ in book.bedrock}
    assert ("meta.llama3-8b-instruct-v1:0", "us-gov-east-1") not in keys
    assert ("meta.llama3-8b-instruct-v1:0", "us-gov-west-1") in keys


def test_no_retirement_is_told_as_a_fact() -> None:
    for name in ("bedrock.json", "ec2.json", "published.json"):
        assert b"2027" not in (Path(prices.__file__).parent / "data" / name).read_bytes()


def test_what_is_old_says_so_after_ninety_days(book: PriceBook) -> None:
    quote = book.instance("inf2.xlarge", "us-east-1", "on-demand")
    assert quote.warnings(quote.source.date + datetime.timedelta(days=90)) == []
    (said,) = quote.warnings(quote.source.date + datetime.timedelta(days=91))
    assert "91 days old" in said
    assert "outcrop cost refresh" in said


@pytest.mark.parametrize(
    ("bedrock", "instances", "problem"),
    [
        ([_model("meta.llama3-8b-instruct-v1:0", 2.65), _model("meta.llama3-70b-instruct-v1:0", 2.5)], [],
         "meta.llama3-8b-instruct-v1:0 in us-east-1: output 2.65 is more than 2.5"),
        ([_model("m", -1)], [], "m: output is -1"),
        ([_model("m", 5000)], [], "m: output is 5000"),
        ([_model("m", 1), _model("m", 0.9, tier="batch")], [], "m in us-east-1: batch input 0.1 is hardly"),
        ([_model("m", 1), _model("m", 0.9, tier="priority")], [], "m in us-east-1: priority output is less"),
        ([_model("m", 1, cache_read=0.5)], [], "m: cache_read 0.5 is more than input 0.1"),
        ([_model("m", 1, source="x")], [], "m, standard gives source 'x', which `sources` does not have"),
        ([_model("m", 1, tier="cheap")], [], "Invalid enum value 'cheap'"),
        ([], [{"instance": "i", "region": "r", "option": "on-demand", "usd_per_hour": 1, "source": "s"},
              {"instance": "i", "region": "r", "option": "spot", "usd_per_hour": 2, "source": "s"}],
         "i in r: spot 2 is more than on-demand 1"),
        ([], [{"instance": "i", "region": "r", "option": "spot", "usd_per_hour": 0, "source": "s"}],
         "i: usd_per_hour is 0"),
    ],
)  # fmt: skip
def test_prices_that_make_no_sense_are_refused(
    tmp_path: Path, bedrock: list[dict[str, object]], instances: list[dict[str, object]], problem: str
) -> None:
    with pytest.raises(PriceError) as refused:
        read_file(_file(tmp_path, bedrock, instances))
    assert problem in str(refused.value)


def test_what_imported_models_cost_is_the_regions_or_stands_in(book: PriceBook, tmp_path: Path) -> None:
    for region, minute, stands_in in (("eu-central-1", "0.07144", False), ("eu-north-1", "0.05718", True)):
        quote = book.find_import(region)
        assert quote is not None
        assert (quote.price.unit_minute, quote.stands_in) == (Decimal(minute), stands_in)
    path = tmp_path / "mine.toml"
    row = '[[imports]]\nregion = "us-east-1"\nunit_minute = 20\nunit_month = 2\nsource = "s"\n'
    path.write_text(f'[sources.s]\nname = "s"\nurl = ""\ndate = 2026-11-01\n{row}')
    with pytest.raises(PriceError, match="imported models in us-east-1: unit_minute is 20"):
        load_prices(path)


def test_the_users_prices_go_before_all_others(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        [sources.contract]
        name = "our contract"
        url = ""
        date = 2026-11-01
        [[instances]]
        instance = "inf2.xlarge"
        region = "us-east-1"
        option = "on-demand"
        usd_per_hour = 0.9
        source = "contract"
        [[instances]]
        instance = "inf2.xlarge"
        region = "us-east-1"
        option = "spot"
        usd_per_hour = 1.1
        source = "contract"
        """
    )
    own = load_prices(path)
    quote = own.instance("inf2.xlarge", "us-east-1", "on-demand")
    # A spot price above the one on demand is odd, but who is the book to say so of a contract.
    assert (quote.price.usd_per_hour, quote.source.name) == (Decimal("0.9"), "our contract")
    assert own.instance("inf2.8xlarge", "us-east-1", "on-demand").price.usd_per_hour == Decimal("1.96786")


def test_what_there_is_no_price_of_is_told_with_what_there_is(book: PriceBook) -> None:
    with pytest.raises(
        PriceError, match=r"no spot price of inf2\.xlarge in us-east-1; there is on-demand in us"
    ):
        book.instance("inf2.xlarge", "us-east-1", "spot")
    with pytest.raises(PriceError, match=r"no price of inf2\.47xlarge; `outcrop cost prices`"):
        book.instance("inf2.47xlarge", "us-east-1", "spot")
    with pytest.raises(PriceError, match="has no price in tier flex; there is batch, standard"):
        book.model(LLAMA_8B, "us-east-1", "flex")
