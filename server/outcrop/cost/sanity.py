"""What prices cannot be. Public price data has had each of these errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outcrop.cost.prices import BedrockPrice, ImportPrice, InstancePrice

_LLAMA = re.compile(r"(?P<family>(?:\w+\.)?meta\.llama\d(?:-\d)?)-(?P<size>\d+)b\b")
_HIGHEST_TOKEN_PRICE = Decimal(1000)
_HIGHEST_HOURLY_PRICE = Decimal(1000)
_DEAREST_BATCH = Decimal("0.75")
"""Of the standard price; batch is half of it, to the cents that it is rounded to."""


class PriceError(ValueError):
    """A price is not known, or a file of prices makes no sense."""


def check(
    bedrock: Sequence[BedrockPrice],
    instances: Sequence[InstancePrice],
    imports: Sequence[ImportPrice] = (),
    *,
    own: bool = False,
) -> list[str]:
    """What is wrong with prices, in words. own: only what no contract can make right."""
    problems = [*_out_of_bounds(bedrock, instances), *_imports_out_of_bounds(imports)]
    if not own:
        problems += [
            *_smaller_costs_more(bedrock),
            *_tiers_upside_down(bedrock),
            *_options_upside_down(instances),
        ]
    return problems


def _out_of_bounds(bedrock: Iterable[BedrockPrice], instances: Iterable[InstancePrice]) -> Iterator[str]:
    for row in bedrock:
        for name in ("input", "output", "cache_read", "cache_write", "cache_write_1h"):
            value = getattr(row, name)
            if value is not None and not 0 <= value <= _HIGHEST_TOKEN_PRICE:
                yield f"{row.model}: {name} is {value}; it is USD for a million tokens, 0 to 1000"
        if row.cache_read is not None and row.cache_read > row.input:
            yield f"{row.model}: cache_read {row.cache_read} is more than input {row.input}"
    for instance in instances:
        if not 0 < instance.usd_per_hour <= _HIGHEST_HOURLY_PRICE:
            yield f"{instance.instance}: usd_per_hour is {instance.usd_per_hour}; it is above 0, at most 1000"
        low, high = instance.low, instance.high
        if low is not None and high is not None and not low <= instance.usd_per_hour <= high:
            yield f"{instance.instance}: {instance.usd_per_hour} is not between low {low} and high {high}"


def _imports_out_of_bounds(imports: Iterable[ImportPrice]) -> Iterator[str]:
    for row in imports:
        if not 0 <= row.unit_minute <= _HIGHEST_HOURLY_PRICE / 60:
            yield f"imported models in {row.region}: unit_minute is {row.unit_minute}; it is USD, 0 to 16"
        if not 0 <= row.unit_month <= _HIGHEST_HOURLY_PRICE:
            yield f"imported models in {row.region}: unit_month is {row.unit_month}; it is USD, 0 to 1000"


def _smaller_costs_more(bedrock: Sequence[BedrockPrice]) -> Iterator[str]:
    """litellm and tokencost both once had the input price of Llama 3 70B as the output price of 8B."""
    sized = [(row, match) for row in bedrock if (match := _LLAMA.match(row.model))]
    for (row, match), (other, its) in combinations(sized, 2):
        alike = (match["family"], row.region, row.tier) == (its["family"], other.region, other.tier)
        if not alike or match["size"] == its["size"]:
            continue
        small, large = sorted((row, other), key=lambda each: int(_size(each.model)))
        for name in ("input", "output"):
            if getattr(small, name) > getattr(large, name):
                yield (
                    f"{small.model} in {small.region}: {name} {getattr(small, name)} is more than "
                    f"{getattr(large, name)}, that of {large.model}"
                )


def _size(model: str) -> str:
    match = _LLAMA.match(model)
    assert match is not None
    return match["size"]


def _tiers_upside_down(bedrock: Iterable[BedrockPrice]) -> Iterator[str]:
    tiers: dict[tuple[str, str], dict[str, BedrockPrice]] = {}
    for row in bedrock:
        tiers.setdefault((row.model, row.region), {})[row.tier] = row
    for (model, region), by_tier in tiers.items():
        if (standard := by_tier.get("standard")) is None:
            continue
        for name in ("input", "output"):
            usual = getattr(standard, name)
            for tier in ("batch", "flex"):
                if tier in by_tier and (price := getattr(by_tier[tier], name)) > _DEAREST_BATCH * usual:
                    yield f"{model} in {region}: {tier} {name} {price} is hardly less than {usual}"
            if "priority" in by_tier and getattr(by_tier["priority"], name) < usual:
                yield f"{model} in {region}: priority {name} is less than the standard {usual}"


def _options_upside_down(instances: Iterable[InstancePrice]) -> Iterator[str]:
    options: dict[tuple[str, str], dict[str, InstancePrice]] = {}
    for row in instances:
        options.setdefault((row.instance, row.region), {})[row.option] = row
    for (name, region), by_option in options.items():
        order = [
            by_option[each] for each in ("on-demand", "reserved-1yr", "reserved-3yr") if each in by_option
        ]
        pairs = list(pairwise(order))
        if "spot" in by_option and "on-demand" in by_option:
            pairs.append((by_option["on-demand"], by_option["spot"]))
        for dearer, cheaper in pairs:
            if cheaper.usd_per_hour > dearer.usd_per_hour:
                yield (
                    f"{name} in {region}: {cheaper.option} {cheaper.usd_per_hour} is more than "
                    f"{dearer.option} {dearer.usd_per_hour}"
                )
