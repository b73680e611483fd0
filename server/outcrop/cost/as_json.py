"""A comparison as plain values, for programs and for the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from outcrop.cost.compare import RATIOS, UTILISATIONS, Against, Comparison


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that the comparison has. Rates are USD for a million tokens.
    `break_even_output_tokens_per_s` is against the first model of `against`, which is the one that is served
    if Bedrock has it."""
    question, first = comparison.question, comparison.against[0]
    return {
        "model": question.model,
        "instance": question.instance,
        "option": question.option,
        "region": question.region,
        "hourly_usd": comparison.hourly,
        "overhead": question.overhead,
        "load": asdict(question.load) | {"ratio": question.load.ratio},
        "throughput": asdict(comparison.throughput) if comparison.throughput else None,
        "instances": comparison.instances,
        "utilisation": comparison.utilisation,
        "monthly_usd": comparison.monthly,
        "usd_per_million_output_if_all_cost_is_output": comparison.own_output_price,
        "break_even_output_tokens_per_s": first.break_even_output_tokens_per_s,
        "break_even_requests_per_s": first.break_even_rps,
        "against": [_against(each) for each in comparison.against],
        "sensitivity": {
            "utilisation": [
                {"utilisation": share, "usd_per_million_blended": comparison.own_blended_at(share)}
                for share in UTILISATIONS
            ],
            "ratio": [
                {
                    "ratio": ratio,
                    "break_even_output_tokens_per_s": first.break_even_at(comparison.hourly, ratio),
                }
                for ratio in RATIOS
            ],
        },
        "energy": asdict(comparison.energy) if comparison.energy else None,
        "prices": [
            {"name": each.name, "url": each.url, "date": each.date.isoformat(), "sha256": each.sha256}
            for each in comparison.sources
        ],
        "warnings": list(comparison.warnings),
    }


def _against(each: Against) -> dict[str, Any]:
    return {
        "model": each.quote.price.model,
        "tier": each.quote.price.tier,
        "region": each.quote.price.region,
        "bedrock": asdict(each.rate),
        "own": asdict(each.own) if each.own else None,
        "break_even_output_tokens_per_s": each.break_even_output_tokens_per_s,
        "break_even_requests_per_s": each.break_even_rps,
        "utilisation_needed": each.needed,
        "monthly_usd": each.monthly,
    }
