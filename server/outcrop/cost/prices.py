"""Prices of Bedrock's models and of EC2 instances: files, and one book made of them.

Prices are USD: of models for a million tokens, of instances for an hour, Linux, shared tenancy, without tax,
storage or data transfer. They are decimal numbers throughout, so that they are what the file says.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

import msgspec

from outcrop.catalog.identifiers import resource_name, without_geography
from outcrop.cost.sanity import PriceError, check
from outcrop.folders import state_folder

Tier = Literal["standard", "batch", "flex", "priority"]
PurchaseOption = Literal["on-demand", "reserved-1yr", "reserved-3yr", "spot"]
OPTIONS: tuple[PurchaseOption, ...] = get_args(PurchaseOption)

REFERENCE_REGION = "us-east-1"
"""Where nothing is known of a region, this one's price stands in, and is said to."""

STALE_AFTER = datetime.timedelta(days=90)

_SHIPPED = files("outcrop.cost") / "data"


def purchase_option(text: str) -> PurchaseOption:
    """What `--option` names. Raises ValueError."""
    for option in OPTIONS:
        if option == text:
            return option
    raise ValueError(f"--option {text}: there are {', '.join(OPTIONS)}")


class Source(msgspec.Struct, frozen=True):
    """Where prices are from. date: the day that they are of, or were read. sha256: of the document."""

    name: str
    url: str
    date: datetime.date
    sha256: str = ""
    note: str = ""


class LongContext(msgspec.Struct, frozen=True):
    """What calls cost whose prompt has more than `above` tokens."""

    above: int
    input: Decimal
    output: Decimal


class BedrockPrice(msgspec.Struct, frozen=True):
    """A model, or a profile whose price is not its model's, in one region and tier. cache_write: of what is
    kept for five minutes; cache_write_1h: for an hour. What is None is not sold, or not known."""

    model: str
    region: str
    tier: Tier
    input: Decimal
    output: Decimal
    source: str
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    long: LongContext | None = None


class InstancePrice(msgspec.Struct, frozen=True):
    """low, high: of spot prices, by availability zone; `usd_per_hour` is one between."""

    instance: str
    region: str
    option: PurchaseOption
    usd_per_hour: Decimal
    source: str
    low: Decimal | None = None
    high: Decimal | None = None


class ImportPrice(msgspec.Struct, frozen=True):
    """What Custom Model Import costs in a region, in USD: a copy of a model takes some custom model units,
    each of which is paid by the minute while the copy runs, in windows of five minutes
    (https://docs.aws.amazon.com/bedrock/latest/userguide/import-model-calculate-cost.html), and by the month
    for being kept."""

    region: str
    unit_minute: Decimal
    unit_month: Decimal
    source: str


class PriceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of prices, JSON or TOML. sources: by the name that rows give. comparisons: models that a cost is
    compared with where none is asked for."""

    sources: dict[str, Source]
    bedrock: tuple[BedrockPrice, ...] = ()
    instances: tuple[InstancePrice, ...] = ()
    imports: tuple[ImportPrice, ...] = ()
    comparisons: tuple[str, ...] = ()


P = TypeVar("P", BedrockPrice, InstancePrice, ImportPrice)


@dataclass(frozen=True, slots=True)
class Quote(Generic[P]):
    """A price, where it is from, and whether it stands in for another region's."""

    price: P
    source: Source
    stands_in: bool

    def age(self, today: datetime.date) -> datetime.timedelta:
        return today - self.source.date

    def warnings(self, today: datetime.date) -> list[str]:
        """What a reader has to know before relying on it."""
        said = []
        if self.stands_in:
            said.append(
                f"{_name(self.price)}: no price of the region is known, {self.price.region}'s stands in; "
                "whether it is sold there is not known either"
            )
        if (age := self.age(today)) > STALE_AFTER:
            spot = isinstance(self.price, InstancePrice) and self.price.option == "spot"
            way = (
                "put today's into a file (--prices)" if spot else "`outcrop cost refresh` reads current ones"
            )
            said.append(f"{_name(self.price)}: the price is {age.days} days old ({self.source.date}); {way}")
        return said


class PriceBook:
    """Prices by model, region and tier, and by instance, region and option. Of files that know the same price
    the last counts."""

    def __init__(self, price_files: Iterable[PriceFile]) -> None:
        self._bedrock: dict[tuple[str, str, Tier], tuple[BedrockPrice, Source]] = {}
        self._instances: dict[tuple[str, str, PurchaseOption], tuple[InstancePrice, Source]] = {}
        self._imports: dict[str, tuple[ImportPrice, Source]] = {}
        self.comparisons: tuple[str, ...] = ()
        for each in price_files:
            for model in each.bedrock:
                self._bedrock[model.model, model.region, model.tier] = (model, each.sources[model.source])
            for instance in each.instances:
                key = (instance.instance, instance.region, instance.option)
                self._instances[key] = (instance, each.sources[instance.source])
            for imported in each.imports:
                self._imports[imported.region] = (imported, each.sources[imported.source])
            self.comparisons = each.comparisons or self.comparisons

    @property
    def bedrock(self) -> Sequence[tuple[BedrockPrice, Source]]:
        return tuple(self._bedrock.values())

    @property
    def instances(self) -> Sequence[tuple[InstancePrice, Source]]:
        return tuple(self._instances.values())

    @property
    def imports(self) -> Sequence[tuple[ImportPrice, Source]]:
        return tuple(self._imports.values())

    def find_model(self, model: str, region: str, tier: Tier = "standard") -> Quote[BedrockPrice] | None:
        """The price of a model id, inference profile or ARN; None if it has none in that tier."""
        name = resource_name(model)
        for candidate in dict.fromkeys((name, without_geography(name))):
            for place in (region, REFERENCE_REGION):
                if found := self._bedrock.get((candidate, place, tier)):
                    return Quote(*found, stands_in=place != region)
        return None

    def model(self, model: str, region: str, tier: Tier = "standard") -> Quote[BedrockPrice]:
        """The same. Raises PriceError, saying what there is."""
        if found := self.find_model(model, region, tier):
            return found
        tiers = sorted({key[2] for key in self._bedrock if key[0] == without_geography(resource_name(model))})
        if tiers:
            raise PriceError(f"{model} has no price in tier {tier}; there is {', '.join(tiers)}")
        raise PriceError(f"there is no price of {model}; `outcrop cost prices` lists those there are")

    def find_import(self, region: str) -> Quote[ImportPrice] | None:
        """What imported models cost."""
        for place in (region, REFERENCE_REGION):
            if found := self._imports.get(place):
                return Quote(*found, stands_in=place != region)
        return None

    def instance(self, name: str, region: str, option: PurchaseOption) -> Quote[InstancePrice]:
        """What an hour costs. Raises PriceError, saying what there is."""
        for place in (region, REFERENCE_REGION):
            if found := self._instances.get((name, place, option)):
                return Quote(*found, stands_in=place != region)
        known = [key for key in self._instances if key[0] == name]
        if known:
            there = ", ".join(f"{key[2]} in {key[1]}" for key in known)
            raise PriceError(f"there is no {option} price of {name} in {region}; there is {there}")
        raise PriceError(f"there is no price of {name}; `outcrop cost prices` lists those there are")


def refreshed_file() -> Path:
    """What `outcrop cost refresh` wrote last, if it ever did."""
    return state_folder() / "prices.json"


def load_prices(user_file: Path | None = None) -> PriceBook:
    """The prices that come with Outcrop, over them those of the last refresh, and over these the user's.
    Raises PriceError for a file that is damaged or makes no sense."""
    layers = shipped()
    if (path := refreshed_file()).exists():
        layers.append(read_file(path))
    if user_file is not None:
        layers.append(read_file(user_file, own=True))
    return PriceBook(layers)


def shipped() -> list[PriceFile]:
    """The files of the package. Raises PriceError if they were changed."""
    hashes = msgspec.json.decode((_SHIPPED / "manifest.json").read_bytes(), type=dict[str, str])
    found = []
    for name, sha256 in hashes.items():
        data = (_SHIPPED / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise PriceError(f"{name} of this installation was changed; put prices of your own into a file")
        found.append(_decode(data, name))
    return found


def read_file(path: Path, *, own: bool = False) -> PriceFile:
    """A file of prices. own: the user's, who may have been given any price. Raises PriceError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PriceError(f"{path}: {error.strerror or error}") from None
    return _decode(data, str(path), own=own)


def _decode(data: bytes, name: str, *, own: bool = False) -> PriceFile:
    decode = msgspec.toml.decode if name.endswith(".toml") else msgspec.json.decode
    try:
        found = decode(data, type=PriceFile)
    except (msgspec.DecodeError, ValueError) as error:
        raise PriceError(f"{name}: {error}") from None
    rows: tuple[BedrockPrice | InstancePrice | ImportPrice, ...] = (
        *found.bedrock, *found.instances, *found.imports,
    )  # fmt: skip
    for row in rows:
        if row.source not in found.sources:
            raise PriceError(
                f"{name}: {_name(row)} gives source {row.source!r}, which `sources` does not have"
            )
    problems = check(found.bedrock, found.instances, found.imports, own=own)
    if problems:
        raise PriceError(f"{name}: " + "; ".join(problems))
    return found


def _name(price: BedrockPrice | InstancePrice | ImportPrice) -> str:
    if isinstance(price, BedrockPrice):
        return f"{price.model}, {price.tier}"
    if isinstance(price, ImportPrice):
        return f"imported models, {price.region}"
    return f"{price.instance}, {price.option}"
