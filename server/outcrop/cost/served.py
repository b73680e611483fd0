"""What the tokens of served models cost, on Bedrock and on the instances that serve them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outcrop.cost.prices import BedrockPrice, PriceBook, PurchaseOption, load_prices
from outcrop.telemetry.spend import Spend, TokenPrice


@dataclass(frozen=True, slots=True)
class Deployment:
    """The instances that serve: `count` of one type, bought in one way. prices: a file that goes before all
    others. instance None: not known, so only Bedrock's side is."""

    instance: str | None
    option: PurchaseOption
    count: int
    region: str
    prices: Path | None = None

    def hourly(self, book: PriceBook) -> float | None:
        """USD of all of them. Raises PriceError."""
        if self.instance is None:
            return None
        price = book.instance(self.instance, self.region, self.option).price
        return float(price.usd_per_hour) * self.count


def token_prices(book: PriceBook, model: str, region: str) -> list[TokenPrice]:
    """What a served model's tokens cost on Bedrock: its own price first, if it has one there, then those of
    the models that costs are compared with."""
    quotes = (book.find_model(name, region) for name in dict.fromkeys((model, *book.comparisons)))
    return [_token_price(quote.price) for quote in quotes if quote is not None]


def spend(deployment: Deployment, models: Iterable[str], today: datetime.date) -> Spend:
    """Dollars so far, for the metrics of a server. Raises PriceError."""
    book = load_prices(deployment.prices)
    prices = {model: token_prices(book, model, deployment.region) for model in models}
    used = [
        quote.age(today).days
        for model in {price.model for each in prices.values() for price in each}
        if (quote := book.find_model(model, deployment.region)) is not None
    ]
    if deployment.instance is not None:
        used.append(book.instance(deployment.instance, deployment.region, deployment.option).age(today).days)
    return Spend(deployment.hourly(book), prices, max(used, default=0))


def _token_price(price: BedrockPrice) -> TokenPrice:
    """Tokens that a cache had cost what reading Bedrock's costs, where Bedrock has one for the model."""
    cached = price.input if price.cache_read is None else price.cache_read
    return TokenPrice(price.model, float(price.input), float(price.output), float(cached))
