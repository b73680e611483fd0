"""What usage cost here, and what it would have cost on Bedrock.

Here: the instances' price for the whole period, whether they worked or not, shared out in proportion to what
each row's tokens would cost on Bedrock (its own model, or the first one that it is compared with)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from outcrop.cost.prices import PriceBook
from outcrop.cost.served import Deployment, token_prices
from outcrop.ledger.usage_report import UsageSum


@dataclass(frozen=True, slots=True)
class BilledUsage:
    """usd: what the row's share of the instances cost, None where they are not known. bedrock: USD by the
    model of Bedrock."""

    usage: UsageSum
    usd: float | None
    bedrock: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class UsageBill:
    """usd: of the instances for the whole period."""

    since: datetime
    until: datetime
    usd: float | None
    rows: tuple[BilledUsage, ...]


def bill(
    sums: Sequence[UsageSum], since: datetime, until: datetime, deployment: Deployment, book: PriceBook
) -> UsageBill:
    """Raises PriceError."""
    hourly = deployment.hourly(book)
    usd = None if hourly is None else hourly * (until - since).total_seconds() / 3600
    bedrock = [_bedrock(each, book, deployment.region) for each in sums]
    weights = [next(iter(each.values()), 0.0) for each in bedrock]
    whole = sum(weights)
    rows = [
        BilledUsage(each, None if usd is None or not whole else usd * weight / whole, there)
        for each, weight, there in zip(sums, weights, bedrock, strict=True)
    ]
    return UsageBill(since, until, usd, tuple(rows))


def _bedrock(usage: UsageSum, book: PriceBook, region: str) -> dict[str, float]:
    return {
        price.model: price.of(usage.input_tokens, usage.cached_tokens, usage.output_tokens)
        for price in token_prices(book, usage.model, region)
    }
