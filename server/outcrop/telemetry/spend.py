"""Dollars so far: what the instance has cost since the server started, and what its tokens would have."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """USD for a million tokens. cached: of input tokens that the prefix cache had. model: whose price it
    is."""

    model: str
    input: float
    output: float
    cached: float

    def of(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """USD."""
        fresh = input_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * self.cached + output_tokens * self.output) / 1e6


@dataclass(slots=True)
class Tokens:
    """Of one model, since the server started."""

    input: int = 0
    cached: int = 0
    output: int = 0


class Spend(Collector):
    """hourly: USD of the instances that serve; None where no instance is set. prices: by the served model's
    name, of each model of Bedrock that it is compared with. oldest: the day of the oldest of these prices, if
    there are any."""

    def __init__(
        self,
        hourly: float | None,
        prices: Mapping[str, Iterable[TokenPrice]],
        oldest: datetime.date | None,
        clock: Callable[[], float] = monotonic,
        today: Callable[[], datetime.date] = datetime.date.today,
    ) -> None:
        self._hourly = hourly
        self._prices = {name: tuple(each) for name, each in prices.items()}
        self._oldest = oldest
        self._clock = clock
        self._today = today
        self._begun = clock()
        self._tokens: dict[str, Tokens] = {}

    def count(self, model_name: str, input_tokens: int, cached_tokens: int, output_tokens: int) -> None:
        tokens = self._tokens.setdefault(model_name, Tokens())
        tokens.input += input_tokens
        tokens.cached += cached_tokens
        tokens.output += output_tokens

    def collect(self) -> Iterable[Metric]:
        if self._hourly is not None:
            own = CounterMetricFamily(
                "outcrop_cost_usd", "What the instances have cost since the server started."
            )
            own.add_metric([], self._hourly * (self._clock() - self._begun) / 3600)
            yield own
        equivalent = CounterMetricFamily(
            "outcrop_bedrock_equivalent_usd",
            "What the same tokens would have cost on Bedrock.",
            labels=["model_name", "bedrock_model"],
        )
        for name, tokens in self._tokens.items():
            for price in self._prices.get(name, ()):
                usd = price.of(tokens.input, tokens.cached, tokens.output)
                equivalent.add_metric([name, price.model], usd)
        yield equivalent
        age = GaugeMetricFamily(
            "outcrop_price_age_days", "Age of the oldest price that these figures rest on."
        )
        age.add_metric([], (self._today() - self._oldest).days if self._oldest else 0)
        yield age
