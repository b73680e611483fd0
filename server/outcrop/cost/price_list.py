"""Current prices, from the files that AWS publishes for everybody.

AWS Price List bulk files:
https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-the-aws-price-list-bulk-api.html. They need
no credentials. Bedrock's is read as JSON: `products` by SKU with `attributes` (`usagetype` says what is
counted, USE1-Llama3-1-8B-input-tokens, with -batch, -flex or -priority behind it; `model` whose it is), and
`terms` with what a SKU costs. A region's EC2 list has hundreds of megabytes, so it is read as CSV, line by
line. Spot prices are in neither."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import product
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.request import urlopen

import msgspec

from outcrop.cost.prices import (
    BedrockPrice,
    InstancePrice,
    PriceBook,
    PriceFile,
    PurchaseOption,
    Source,
    Tier,
)
from outcrop.cost.sanity import PriceError, check

ENDPOINT = "https://pricing.us-east-1.amazonaws.com"

_TIMEOUT = 60.0  # seconds without a byte
_LARGEST = 2 << 30  # bytes of an offer file
_PIECE = 1 << 20

_NAMES = {
    "Llama 3 8B": "meta.llama3-8b-instruct-v1:0",
    "Llama 3 70B": "meta.llama3-70b-instruct-v1:0",
    "Llama 3.1 8B": "meta.llama3-1-8b-instruct-v1:0",
    "Llama 3.1 70B": "meta.llama3-1-70b-instruct-v1:0",
    "Llama 3.1 405B": "meta.llama3-1-405b-instruct-v1:0",
    "Llama 3.2 1B": "meta.llama3-2-1b-instruct-v1:0",
    "Llama 3.2 3B": "meta.llama3-2-3b-instruct-v1:0",
    "Llama 3.2 11B": "meta.llama3-2-11b-instruct-v1:0",
    "Llama 3.2 90B": "meta.llama3-2-90b-instruct-v1:0",
    "Llama 3.3 70B": "meta.llama3-3-70b-instruct-v1:0",
    "Llama 4 Scout 17B": "meta.llama4-scout-17b-instruct-v1:0",
    "Llama 4 Maverick 17B": "meta.llama4-maverick-17b-instruct-v1:0",
    "Claude 3 Haiku": "anthropic.claude-3-haiku-20240307-v1:0",
    "Claude 3 Sonnet": "anthropic.claude-3-sonnet-20240229-v1:0",
    "Nova Micro": "amazon.nova-micro-v1:0",
    "Nova Lite": "amazon.nova-lite-v1:0",
    "Nova Pro": "amazon.nova-pro-v1:0",
    "Titan Text G1 Express": "amazon.titan-text-express-v1",
    "Titan Text G1 Lite": "amazon.titan-text-lite-v1",
}
"""The price list's names of models, less "Instruct", which only some of its rows have."""

_USAGE = re.compile(r"(?:^|-)(?P<what>input|output)-tokens?(?:-count)?(?:-(?P<tier>batch|flex|priority))?$")
"""Whatever else stands behind it (custom-model, latency-optimized, cross-region-global, long-context) is the
price of something else."""

_TIERS: Mapping[str | None, Tier] = {
    None: "standard",
    "batch": "batch",
    "flex": "flex",
    "priority": "priority",
}

_PER_MILLION = {"1k tokens": Decimal(1000), "1m tokens": Decimal(1)}

_PLAIN_LINUX = {
    "Operating System": "Linux",
    "Tenancy": "Shared",
    "Pre Installed S/W": "NA",
    "CapacityStatus": "Used",
    "Unit": "Hrs",
    "Currency": "USD",
}
"""Nothing installed, and no part of a reservation."""

_RESERVED: Mapping[str, PurchaseOption] = {"1yr": "reserved-1yr", "3yr": "reserved-3yr"}


class Parser(Protocol):
    """Takes what it knows out of an offer file. source: what its rows are to give as theirs."""

    def __call__(
        self, file: IO[bytes], region: str, source: str
    ) -> Iterable[BedrockPrice] | Iterable[InstancePrice]: ...


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh found. prices: what is to be kept from now on; kept: what could not be read, and why."""

    prices: PriceFile
    models: int
    instances: int
    kept: list[str]


def refresh(
    old: PriceFile | None,
    regions: Iterable[str],
    instances: Iterable[str],
    *,
    today: datetime.date,
    endpoint: str = ENDPOINT,
    progress: Callable[[str], None] = lambda text: None,
) -> Refreshed:
    """Read the price list of some regions, for all known models and the given instances. old: what the last
    refresh found, of which everything stays that this one does not find. endpoint: where the list is."""
    merged, kept = old or PriceFile(sources={}), []
    counts = [0, 0]
    wanted = frozenset(instances)
    parsers: list[tuple[str, str, Parser]] = [
        ("AmazonBedrock", "index.json", _models_in),
        ("AmazonEC2", "index.csv", partial(_instances_in, wanted=wanted)),
    ]
    for region, (service, name, parse) in product(regions, parsers):
        key = f"{service}/{region}"
        url = f"{endpoint}/offers/v1.0/aws/{service}/current/{region}/{name}"
        progress(key)
        try:
            with _download(url, progress) as (file, sha256):
                rows: list[BedrockPrice | InstancePrice] = [*parse(file, region, key)]
            if not rows:
                raise ValueError("it has no price that is known here; its form may have changed")
            merged = _merge(merged, rows, key, Source(f"AWS Price List, {key}", url, today, sha256))
        except (OSError, ValueError, KeyError) as error:
            kept.append(f"{key}: {error}; its old prices stay")
            continue
        for row in rows:
            counts[isinstance(row, InstancePrice)] += 1
    return Refreshed(merged, counts[0], counts[1], kept)


def write(prices: PriceFile, path: Path) -> None:
    """Keep refreshed prices, in one motion: what reads them meanwhile sees the old ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.Encoder(decimal_format="number").encode(prices), indent=1)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data + b"\n")
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def known_instances(book: PriceBook) -> list[str]:
    """What a refresh asks the price of: EC2's instances that have one already."""
    return sorted({price.instance for price, _ in book.instances if not price.instance.startswith("ml.")})


@contextmanager
def _download(url: str, progress: Callable[[str], None]) -> Iterator[tuple[IO[bytes], str]]:
    """The document, in a file that is gone afterwards, and its sha256. Raises OSError and ValueError."""
    digest, size = hashlib.sha256(), 0
    with tempfile.TemporaryFile() as file:
        with urlopen(url, timeout=_TIMEOUT) as answer:
            while piece := answer.read(_PIECE):
                size += len(piece)
                if size > _LARGEST:
                    raise ValueError(f"it is larger than {_LARGEST >> 30} GiB")
                digest.update(piece)
                file.write(piece)
                if size % (32 * _PIECE) < _PIECE:
                    progress(f"{url}: {size >> 20} MiB")
        file.seek(0)
        yield file, digest.hexdigest()


def _models_in(file: IO[bytes], region: str, source: str) -> Iterator[BedrockPrice]:
    """Raises ValueError for what is not an offer file."""
    offer: Any = json.load(file)
    if not isinstance(offer, dict) or "products" not in offer or "terms" not in offer:
        raise ValueError("it is not an offer file: it has no products and terms")
    found: dict[tuple[str, Tier], dict[str, Decimal]] = {}
    for sku, each in offer["products"].items():
        attributes = each.get("attributes", {})
        usage = _USAGE.search(attributes.get("usagetype", ""))
        model = _NAMES.get(str(attributes.get("model", "")).removesuffix(" Instruct"))
        price = _token_price(offer["terms"], sku)
        if usage is None or model is None or price is None or attributes.get("regionCode", region) != region:
            continue
        tier = _TIERS[usage["tier"]]
        found.setdefault((model, tier), {})[usage["what"]] = price
    for (model, tier), prices in found.items():
        if prices.keys() == {"input", "output"}:
            yield BedrockPrice(model, region, tier, prices["input"], prices["output"], source)


def _token_price(terms: Mapping[str, Any], sku: str) -> Decimal | None:
    """USD for a million tokens of what is paid as it is used; None for what is not counted in tokens."""
    for offer in terms.get("OnDemand", {}).get(sku, {}).values():
        for dimension in offer["priceDimensions"].values():
            factor = _PER_MILLION.get(dimension.get("unit", "").lower())
            if factor is not None and "USD" in dimension["pricePerUnit"]:
                return _decimal(dimension["pricePerUnit"]["USD"]) * factor
    return None


def _instances_in(
    file: IO[bytes], region: str, source: str, wanted: Container[str]
) -> Iterator[InstancePrice]:
    """Raises ValueError for what is not an offer file."""
    text = (line.decode() for line in file)
    # Above the header are a few lines about the file.
    for line in text:
        if line.startswith('"SKU"'):
            break
    else:
        raise ValueError("it is not an offer file: it has no header")
    found: dict[tuple[str, PurchaseOption], Decimal] = {}
    for row in csv.DictReader(text, fieldnames=next(csv.reader([line]))):
        if row["Instance Type"] not in wanted or any(
            row[name] != value for name, value in _PLAIN_LINUX.items()
        ):
            continue
        option = _option(row)
        # The hours of capacity blocks are listed too, as costing nothing.
        if option is not None and (price := _decimal(row["PricePerUnit"])):
            found[row["Instance Type"], option] = price
    for (name, option), price in found.items():
        yield InstancePrice(name, region, option, price, source)


def _option(row: Mapping[str, str]) -> PurchaseOption | None:
    if row["TermType"] == "OnDemand":
        return "on-demand"
    if (row["OfferingClass"], row["PurchaseOption"]) == ("standard", "No Upfront"):
        return _RESERVED.get(row["LeaseContractLength"])
    return None


def _decimal(text: str) -> Decimal:
    """Without the zeros that the price list writes behind numbers. Raises ValueError."""
    try:
        return Decimal(format(Decimal(text).normalize(), "f"))
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a price") from None


def _merge(
    old: PriceFile, rows: Sequence[BedrockPrice | InstancePrice], key: str, source: Source
) -> PriceFile:
    """Raises PriceError for rows that make no sense."""
    bedrock = {(row.model, row.region, row.tier): row for row in old.bedrock}
    instances = {(row.instance, row.region, row.option): row for row in old.instances}
    for row in rows:
        if isinstance(row, BedrockPrice):
            bedrock[row.model, row.region, row.tier] = row
        else:
            instances[row.instance, row.region, row.option] = row
    merged = PriceFile({**old.sources, key: source}, tuple(bedrock.values()), tuple(instances.values()))
    if problems := check(merged.bedrock, merged.instances):
        raise PriceError("; ".join(problems))
    return merged
