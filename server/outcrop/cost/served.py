"""What the tokens of served models cost, on Bedrock and on the instances that serve them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outcrop.cost.prices import BedrockPrice, PriceBook, PurchaseOption, Quote, load_prices
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
    return [_token_price(quote.price) for quote in _quotes(book, model, region)]


def spend(deployment: Deployment, models: Iterable[str]) -> Spend:
    """Dollars so far, for the metrics of a server. Raises PriceError."""
    book = load_prices(deployment.prices)
    quotes = {model: _quotes(book, model, deployment.region) for model in models}
    dates = [quote.source.date for each in quotes.values() for quote in each]
    if deployment.instance is not None:
        own = book.instance(deployment.instance, deployment.region, deployment.option)
        dates.append(own.source.date)
    prices = {model: [_token_price(quote.price) for quote in each] for model, each in quotes.items()}
    return Spend(deployment.hourly(book), prices, min(dates, default=None))


def _quotes(book: PriceBook, model: str, region: str) -> list[Quote[BedrockPrice]]:
    found = (book.find_model(name, region) for name in dict.fromkeys((model, *book.comparisons)))
    return [quote for quote in found if quote is not None]


def _token_price(price: BedrockPrice) -> TokenPrice:
    """Tokens that a cache had cost what reading Bedrock's costs, where Bedrock has one for the model."""
    cached = price.input if price.cache_read is None else price.cache_read
    return TokenPrice(price.model, float(price.input), float(price.output), float(cached))
