"""What usage cost here, and what it would have cost on Bedrock.

Here: the instances' price for the whole period, whether they worked or not, shared out in proportion to what
each row's tokens would cost on Bedrock (its own model, or the first one that it is compared with)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from outcrop.cost.prices import PriceBook
from outcrop.cost.served import Deployment, token_prices
from outcrop.ledger.usage_report import WINDOW, UsageSum


@dataclass(frozen=True, slots=True)
class BilledUsage:
    """usd: what the row's share of the instances cost, None where they are not known. bedrock: USD by the
    model of Bedrock."""

    usage: UsageSum
    usd: float | None
    bedrock: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ImportedUsage:
    """A model of one's own, whose tokens have no price on Bedrock: there it would be imported, and each copy
    of it that runs be billed by time. windows: of five minutes, in which it was called. usd_per_unit: for
    these, of each custom model unit of one copy. How many units a copy takes is told by GetImportedModel, and
    Bedrock starts more copies as calls come: neither is known here. unit_minute, unit_month: USD of a unit
    while it runs, and for being kept; in `region`, on `price_date`."""

    model: str
    windows: int
    usd_per_unit: float
    unit_minute: float
    unit_month: float
    region: str
    price_date: date


@dataclass(frozen=True, slots=True)
class UsageBill:
    """usd: of the instances for the whole period. imported: none where that price is not known."""

    since: datetime
    until: datetime
    usd: float | None
    rows: tuple[BilledUsage, ...]
    imported: tuple[ImportedUsage, ...]


def unpriced(sums: Sequence[UsageSum], deployment: Deployment, book: PriceBook) -> list[str]:
    """The models among them whose tokens have no price on Bedrock."""
    models = dict.fromkeys(each.model for each in sums)
    return [model for model in models if book.find_model(model, deployment.region) is None]


def bill(
    sums: Sequence[UsageSum],
    windows: Mapping[str, int],
    since: datetime,
    until: datetime,
    deployment: Deployment,
    book: PriceBook,
) -> UsageBill:
    """windows: of `unpriced` models, as `count_windows` has them. Raises PriceError."""
    hourly = deployment.hourly(book)
    usd = None if hourly is None else hourly * (until - since).total_seconds() / 3600
    bedrock = [_bedrock(each, book, deployment.region) for each in sums]
    weights = [next(iter(each.values()), 0.0) for each in bedrock]
    whole = sum(weights)
    rows = [
        BilledUsage(each, None if usd is None or not whole else usd * weight / whole, there)
        for each, weight, there in zip(sums, weights, bedrock, strict=True)
    ]
    return UsageBill(since, until, usd, tuple(rows), tuple(_imported(windows, book, deployment.region)))


def _imported(windows: Mapping[str, int], book: PriceBook, region: str) -> Iterator[ImportedUsage]:
    if (quote := book.find_import(region)) is None:
        return
    minute, month = float(quote.price.unit_minute), float(quote.price.unit_month)
    for model, count in windows.items():
        usd = count * minute * WINDOW.total_seconds() / 60
        yield ImportedUsage(model, count, usd, minute, month, quote.price.region, quote.source.date)


def _bedrock(usage: UsageSum, book: PriceBook, region: str) -> dict[str, float]:
    return {
        price.model: price.of(usage.input_tokens, usage.cached_tokens, usage.output_tokens)
        for price in token_prices(book, usage.model, region)
    }
