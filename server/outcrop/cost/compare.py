"""What a load costs on an instance of one's own, and on Bedrock; and at which load they cost the same.

How self-hosting is priced: an instance costs the same whether it works or not, so a token's price is the
hour's divided by the tokens of an hour. Input and output tokens share it in the proportion of the Bedrock
prices that it is compared with, so that the two can be set side by side.

The break-even rate (output tokens a second at which Bedrock's bill is the instance's): with r input tokens
for each output token, prices p_in and p_out for a million, and the instance busy for a share u of the time,

    hourly / 3600 / ((r * p_in + p_out) / 1e6) / u
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.cost.energy import Energy, estimate_energy
from outcrop.cost.prices import BedrockPrice, InstancePrice, PriceBook, PurchaseOption, Quote, Source, Tier
from outcrop.cost.sanity import PriceError
from outcrop.cost.throughput import Throughput
from outcrop.cost.workload import Workload

HOURS_A_MONTH = 730
"""8760 hours of a year, a twelfth of them: what AWS's own calculator takes."""

UTILISATIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RATIOS = (0.25, 0.5, 1, 2, 3, 4, 6, 8, 10, 20)

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be compared. model: as Bedrock names it. utilisation: share of the time, or of its
    throughput, that an instance works; None for what the load makes of it. overhead: on top of the instance's
    price, 0.1 for a tenth. against: further models with their tiers, None for those of the price files."""

    model: str
    instance: str
    option: PurchaseOption
    region: str
    load: Workload
    utilisation: float | None = None
    overhead: float = 0.0
    against: Sequence[tuple[str, Tier]] | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """USD for a million tokens: of input, of output, and of all of them in the load's mixture."""

    input: float
    output: float
    blended: float


@dataclass(frozen=True, slots=True)
class Against:
    """One model of Bedrock beside the instance.

    break_even_*: rates of one instance. needed: utilisation at which the costs are equal, by the throughput
    that is known; above 1 it cannot be reached. own: what a million tokens cost on the instance at its
    utilisation. monthly: Bedrock's bill in USD, where the load says how many requests there are."""

    quote: Quote[BedrockPrice]
    rate: Rate
    break_even_output_tokens_per_s: float
    break_even_rps: float
    needed: float | None
    own: Rate | None
    monthly: float | None

    @property
    def name(self) -> str:
        """In short: without the provider, "instruct", and the version that Bedrock's ids end in."""
        price = self.quote.price
        name = re.sub(r"^(?:[a-z-]+\.)*|(?:-instruct|-chat|-\d{8})?(?:-v\d+)?(?::\d+)?$", "", price.model)
        return name if price.tier == "standard" else f"{name} ({price.tier})"

    def break_even_at(self, hourly: float, ratio: float, utilisation: float = 1.0) -> float:
        """Output tokens a second, for another mixture."""
        return break_even(hourly, self.quote.price, ratio, utilisation)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer. hourly: USD, overhead included. instances: as many as the load needs. monthly: USD of them,
    of one where the load does not say. utilisation: of each, at this load."""

    question: Question
    quote: Quote[InstancePrice]
    hourly: float
    throughput: Throughput | None
    instances: int | None
    utilisation: float
    monthly: float
    against: tuple[Against, ...]
    energy: Energy | None
    warnings: tuple[str, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        """Of the prices, each once."""
        return tuple(dict.fromkeys((self.quote.source, *(each.quote.source for each in self.against))))

    @property
    def own_output_price(self) -> float | None:
        """USD for a million output tokens, if they bear all of the instance's cost: how benchmarks print
        it."""
        if self.throughput is None:
            return None
        return _hourly_to_million(self.hourly, self.throughput.output_tokens_per_s * self.utilisation)

    def own_blended_at(self, utilisation: float) -> float | None:
        """USD for a million tokens of input and output together."""
        if self.throughput is None:
            return None
        tokens = self.throughput.output_tokens_per_s * (1 + self.question.load.ratio)
        return _hourly_to_million(self.hourly, tokens * utilisation)


def break_even(hourly: float, price: BedrockPrice, ratio: float, utilisation: float = 1.0) -> float:
    """Output tokens a second of an instance at which it costs what Bedrock does. hourly: USD. ratio: input
    tokens for each output token. utilisation: the share of the time that it makes them."""
    for_a_million = ratio * float(price.input) + float(price.output)
    return hourly / 3600 / (for_a_million / _MILLION) / utilisation


def compare(
    question: Question, book: PriceBook, throughput: Throughput | None, today: datetime.date
) -> Comparison:
    """Raises PriceError for prices that are not known."""
    quote = book.instance(question.instance, question.region, question.option)
    hourly = float(quote.price.usd_per_hour) * (1 + question.overhead)
    instances, utilisation = _use(question, throughput)
    against = tuple(
        _against(question, each, hourly, throughput, utilisation) for each in _comparators(question, book)
    )
    return Comparison(
        question=question,
        quote=quote,
        hourly=hourly,
        throughput=throughput,
        instances=instances,
        utilisation=utilisation,
        monthly=(instances or 1) * hourly * HOURS_A_MONTH,
        against=against,
        energy=estimate_energy(question.instance, throughput, utilisation),
        warnings=tuple(_warnings(question, quote, against, throughput, today)),
    )


def _use(question: Question, throughput: Throughput | None) -> tuple[int | None, float]:
    """How many instances the load needs, and how busy each is."""
    if throughput is None or question.load.rps is None:
        return None, question.utilisation or 1.0
    wanted = question.load.rps * question.load.output_tokens
    # An instance that is to work for a part of the time takes as much less.
    instances = max(1, math.ceil(wanted / (throughput.output_tokens_per_s * (question.utilisation or 1.0))))
    return instances, wanted / (instances * throughput.output_tokens_per_s)


def _comparators(question: Question, book: PriceBook) -> list[Quote[BedrockPrice]]:
    """The model itself first, in the tiers that it has, then the others. Raises PriceError."""
    found = [
        each
        for tier in ("standard", "batch")
        if (each := book.find_model(question.model, question.region, tier)) is not None
    ]
    if not found and not question.against:
        raise PriceError(
            f"Bedrock has no price of {question.model}; name models to compare it with (--against); "
            "`outcrop cost prices` lists them"
        )
    if question.against is None:
        others = [book.find_model(model, question.region) for model in book.comparisons]
        found += [each for each in others if each is not None]
    else:
        found += [book.model(model, question.region, tier) for model, tier in question.against]
    distinct = {(each.price.model, each.price.tier): each for each in found}
    return list(distinct.values())


def _against(
    question: Question,
    quote: Quote[BedrockPrice],
    hourly: float,
    throughput: Throughput | None,
    utilisation: float,
) -> Against:
    load, price = question.load, quote.price
    rate = _rate(float(price.input), float(price.output), load.ratio)
    tokens = break_even(hourly, price, load.ratio)
    own = None
    if throughput is not None:
        # What the instance makes in an hour costs the hour's price here, and `there` on Bedrock.
        output = throughput.output_tokens_per_s * utilisation * 3600 / _MILLION
        there = output * (load.ratio * rate.input + rate.output)
        own = _rate(rate.input * hourly / there, rate.output * hourly / there, load.ratio)
    monthly = None
    if load.rps is not None:
        each = (load.input_tokens * rate.input + load.output_tokens * rate.output) / _MILLION
        monthly = load.rps * 3600 * HOURS_A_MONTH * each
    return Against(
        quote=quote,
        rate=rate,
        break_even_output_tokens_per_s=break_even(hourly, price, load.ratio, question.utilisation or 1.0),
        break_even_rps=tokens / load.output_tokens,
        needed=tokens / throughput.output_tokens_per_s if throughput else None,
        own=own,
        monthly=monthly,
    )


def _rate(input: float, output: float, ratio: float) -> Rate:
    return Rate(input, output, (ratio * input + output) / (ratio + 1))


def _hourly_to_million(hourly: float, tokens_per_s: float) -> float:
    return hourly / 3600 / tokens_per_s * _MILLION


def _warnings(
    question: Question,
    quote: Quote[InstancePrice],
    against: Sequence[Against],
    throughput: Throughput | None,
    today: datetime.date,
) -> list[str]:
    said = quote.warnings(today)
    for each in against:
        said += each.quote.warnings(today)
        long = each.quote.price.long
        if long is not None and question.load.input_tokens > long.above:
            said.append(
                f"{each.name}: prompts beyond {long.above} tokens cost {long.input} and {long.output}"
            )
    price = quote.price
    if price.option == "spot":
        between = f", {price.low} to {price.high} by zone" if price.low != price.high else ""
        said.append(f"spot prices change by the hour{between}, and the instance can be taken away")
    if throughput is not None:
        its, load = throughput.input_tokens / throughput.output_tokens, question.load
        if max(its, load.ratio) > 1.5 * min(its, load.ratio):
            said.append(
                f"the throughput is of {its:.2g} input tokens for each output token, the load of "
                f"{load.ratio:.2g}: what depends on it is rough"
            )
    return said
