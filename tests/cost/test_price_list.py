"""Refreshing prices from files of the form that AWS publishes, served by a local server."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop.cost import price_list
from outcrop.cost.prices import PriceBook, PriceFile, load_prices, read_file, refreshed_file

TODAY = datetime.date(2026, 11, 28)
PREFIX = "/offers/v1.0/aws"
MODELS = f"{PREFIX}/AmazonBedrock/current/us-east-1/index.json"
INSTANCES = f"{PREFIX}/AmazonEC2/current/us-east-1/index.csv"

Files = dict[str, bytes]


def _product(usage: str, model: str, price: str, unit: str = "1K tokens") -> tuple[str, str, str, str]:
    return usage, model, price, unit


def _bedrock(*rows: tuple[str, str, str, str]) -> bytes:
    """An offer file, with what AWS's has around a price."""
    products, terms = {}, {}
    for number, (usage, model, price, unit) in enumerate(rows):
        sku = f"SKU{number}"
        products[sku] = {
            "sku": sku,
            "productFamily": "Amazon Bedrock",
            "attributes": {
                "servicecode": "AmazonBedrock",
                "location": "US East (N. Virginia)",
                "locationType": "AWS Region",
                "usagetype": usage,
                "operation": "",
                "regionCode": "us-east-1",
                "feature": "On-demand Inference",
                "model": model,
                "servicename": "Amazon Bedrock",
            },
        }
        rate = f"{sku}.JRTCKXETXF.6YS6EN2CT7"
        dimension = {
            "rateCode": rate,
            "description": f"${price} per {unit}",
            "beginRange": "0",
            "endRange": "Inf",
            "unit": unit,
            "pricePerUnit": {"USD": price},
            "appliesTo": [],
        }
        terms[sku] = {
            f"{sku}.JRTCKXETXF": {
                "offerTermCode": "JRTCKXETXF",
                "sku": sku,
                "effectiveDate": "2026-11-01T00:00:00Z",
                "priceDimensions": {rate: dimension},
                "termAttributes": {},
            }
        }
    document = {
        "formatVersion": "v1.0",
        "offerCode": "AmazonBedrock",
        "version": "20261127000000",
        "publicationDate": "2026-11-27T00:00:00Z",
        "products": products,
        "terms": {"OnDemand": terms},
    }
    return json.dumps(document).encode()


COLUMNS = (
    "SKU", "OfferTermCode", "RateCode", "TermType", "PriceDescription", "EffectiveDate", "StartingRange",
    "EndingRange", "Unit", "PricePerUnit", "Currency", "LeaseContractLength", "PurchaseOption",
    "OfferingClass", "Product Family", "serviceCode", "Location", "Instance Type",
    "Tenancy",
    "Operating System", "CapacityStatus", "Pre Installed S/W", "Region Code",
)  # fmt: skip
USUAL = {
    "SKU": "X", "TermType": "OnDemand", "PriceDescription": "$1, per hour", "Unit": "Hrs",
    "Currency": "USD",
    "Product Family": "Compute Instance", "serviceCode": "AmazonEC2", "Location": "US East (N. Virginia)",
    "Instance Type": "inf2.xlarge", "Tenancy": "Shared", "Operating System": "Linux",
    "CapacityStatus": "Used",
    "Pre Installed S/W": "NA", "Region Code": "us-east-1",
}  # fmt: skip
NO_UPFRONT = {"TermType": "Reserved", "PurchaseOption": "No Upfront", "OfferingClass": "standard"}


def _ec2(*rows: dict[str, str]) -> bytes:
    head = (
        '"FormatVersion","v1.0"\n"Disclaimer","This pricing list is for informational purposes only."\n'
        '"Publication Date","2026-11-27T00:00:00Z"\n"Version","20261127000000"\n"OfferCode","AmazonEC2"\n'
    )
    lines = [dict(zip(COLUMNS, COLUMNS, strict=True)), *(USUAL | row for row in rows)]
    return (
        head + "".join(",".join(f'"{row.get(name, "")}"' for name in COLUMNS) + "\n" for row in lines)
    ).encode()


GOOD: Files = {
    MODELS: _bedrock(
        _product("USE1-Llama3-1-8B-input-tokens", "Llama 3.1 8B", "0.0002100000"),
        _product("USE1-Llama3-1-8B-output-tokens", "Llama 3.1 8B", "0.0002300000"),
        _product("USE1-Llama3-1-8B-input-tokens-batch", "Llama 3.1 8B Instruct", "0.0001050000"),
        _product("USE1-Llama3-1-8B-output-tokens-batch", "Llama 3.1 8B Instruct", "0.0001150000"),
        # What these count is not what a call of the model costs.
        _product("USE1-Llama3-1-8B-input-tokens-custom-model", "Llama 3.1 8B", "0.9"),
        _product("USE1-Llama3-1-8B-Customization-Training", "Llama 3.1 8B", "0.00149"),
        _product("USE1-Llama3-1-8B-ProvisionedThroughput-ModelUnits", "Llama 3.1 8B", "24", "hour"),
        _product("USE1-Llama3-1-70B-input-tokens-latency-optimized", "Llama 3.1 70B", "0.0009"),
        # Half a price is none.
        _product("USE1-Llama3-3-70B-input-tokens", "Llama 3.3 70B", "0.00072"),
        _product("USE1-Mystery-input-tokens", "Mystery 9", "0.1"),
    ),
    INSTANCES: _ec2(
        {"PricePerUnit": "0.7600000000"},
        {"PricePerUnit": "0.0000000000"},  # a capacity block
        {"PricePerUnit": "0.9", "Operating System": "Windows"},
        {"PricePerUnit": "0.8", "Tenancy": "Dedicated"},
        {"PricePerUnit": "0.7", "CapacityStatus": "UnusedCapacityReservation"},
        {"PricePerUnit": "1.9", "Pre Installed S/W": "SQL Std"},
        {"PricePerUnit": "0.4800000000", "LeaseContractLength": "1yr"} | NO_UPFRONT,
        {"PricePerUnit": "0.3300000000", "LeaseContractLength": "3yr"} | NO_UPFRONT,
        {"PricePerUnit": "0.2", "LeaseContractLength": "1yr"} | NO_UPFRONT | {"OfferingClass": "other"},
        {"PricePerUnit": "0.1", "LeaseContractLength": "1yr"} | NO_UPFRONT | {"PurchaseOption": "All"},
        {"PricePerUnit": "0.5", "Instance Type": "t3.large"},
    ),
}  # fmt: skip


@pytest.fixture
def serve() -> Iterator[Callable[[Files], str]]:
    servers = []

    def start(files: Files) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = files.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _refresh(endpoint: str, old: PriceFile | None = None) -> price_list.Refreshed:
    wanted = price_list.known_instances(load_prices())
    return price_list.refresh(old, ["us-east-1"], wanted, today=TODAY, endpoint=endpoint)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_prices_are_read_and_nothing_beside_them(serve: Callable[[Files], str]) -> None:
    found = _refresh(serve(GOOD))
    assert found.kept == []
    assert {(row.model, row.tier, row.input, row.output) for row in found.prices.bedrock} == {
        ("meta.llama3-1-8b-instruct-v1:0", "standard", Decimal("0.21"), Decimal("0.23")),
        ("meta.llama3-1-8b-instruct-v1:0", "batch", Decimal("0.105"), Decimal("0.115")),
    }
    assert {(row.instance, row.option, row.usd_per_hour) for row in found.prices.instances} == {
        ("inf2.xlarge", "on-demand", Decimal("0.76")),
        ("inf2.xlarge", "reserved-1yr", Decimal("0.48")),
        ("inf2.xlarge", "reserved-3yr", Decimal("0.33")),
    }
    (source, other) = found.prices.sources.values()
    assert source.date == other.date == TODAY
    assert len(source.sha256) == 64
    assert source.url.endswith(MODELS)


def test_refreshed_prices_go_before_the_shipped_ones_and_survive(
    serve: Callable[[Files], str], tmp_path: Path
) -> None:
    price_list.write(_refresh(serve(GOOD)).prices, refreshed_file())
    book = load_prices()
    assert book.instance("inf2.xlarge", "us-east-1", "on-demand").price.usd_per_hour == Decimal("0.76")
    assert book.instance("inf2.8xlarge", "us-east-1", "on-demand").price.usd_per_hour == Decimal("1.96786")
    quote = book.model("meta.llama3-1-8b-instruct-v1:0", "us-east-1")
    assert (quote.price.input, quote.source.date, quote.warnings(TODAY)) == (Decimal("0.21"), TODAY, [])


BAD = {
    "nothing there": {},
    "not JSON": {MODELS: b"<html>", INSTANCES: b"<html>"},
    "another form": {MODELS: b'{"products": {}, "terms": {}}', INSTANCES: b'"SKU","Price"\n"a","1"\n'},
    "cut off": {MODELS: GOOD[MODELS][:-100], INSTANCES: GOOD[INSTANCES][:120]},
    "8B dearer than 70B": {
        MODELS: _bedrock(
            _product("USE1-Llama3-8B-input-tokens", "Llama 3 8B", "0.0003"),
            _product("USE1-Llama3-8B-output-tokens", "Llama 3 8B", "0.0036"),
            _product("USE1-Llama3-70B-input-tokens", "Llama 3 70B", "0.00265"),
            _product("USE1-Llama3-70B-output-tokens", "Llama 3 70B", "0.0035"),
        ),
        INSTANCES: _ec2({"PricePerUnit": "a lot"}),
    },
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_leaves_the_old_prices(serve: Callable[[Files], str], name: str) -> None:
    old = _refresh(serve(GOOD)).prices
    found = _refresh(serve(BAD[name]), old)
    assert found.prices == old
    assert len(found.kept) == 2
    assert all(each.endswith("its old prices stay") for each in found.kept)


def test_the_command_keeps_what_it_found_and_tells_what_it_did_not(serve: Callable[[Files], str]) -> None:
    endpoint = serve({MODELS: GOOD[MODELS]})
    result = CliRunner().invoke(app, ["cost", "refresh", "--endpoint", endpoint])
    assert result.exit_code == 1
    assert "2 prices of models and 0 of instances" in result.stdout
    assert "not read: AmazonEC2/us-east-1: HTTP Error 404" in result.stderr
    assert "(old: outcrop cost refresh)" in result.stderr
    book = PriceBook([read_file(refreshed_file())])
    assert book.model("meta.llama3-1-8b-instruct-v1:0", "us-east-1").price.input == Decimal("0.21")


def test_without_a_network_the_command_changes_nothing() -> None:
    result = CliRunner().invoke(app, ["cost", "refresh", "--endpoint", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert result.stderr.count("its old prices stay") == 2
    assert not refreshed_file().exists()
