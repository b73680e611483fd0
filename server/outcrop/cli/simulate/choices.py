"""From the command line's words to what is simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from outcrop.simulate.sweep import Grid, Load
    from outcrop_compile.plan import PlanRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """The options that say what load there is; None where an option was not given."""

    rate: float | None
    users: int | None
    trace: Path | None
    burstiness: float
    think: float
    requests: int | None
    prompt: int
    output: int
    prompt_spread: float
    output_spread: float
    speed: float
    seed: int


DEFAULT_REQUESTS = 2000


def load_of(choice: LoadChoice, longest: int, instances: int = 1) -> Load:
    """longest: tokens that a drawn prompt, or answer, has at most. instances: that share it, each of which
    gets --requests of a drawn load. Raises ValueError."""
    from outcrop.simulate.trace import Lengths, closed_loop, poisson
    from outcrop.simulate.trace_file import read_trace

    given = {"--rate": choice.rate, "--users": choice.users, "--trace": choice.trace}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        said = " and ".join(named) or "none of them"
        raise ValueError(f"{said} given: say the load with one of {', '.join(given)}")
    if choice.requests is not None and choice.requests < 1:
        raise ValueError(f"--requests {choice.requests}: there has to be one at least")
    if choice.trace is not None:
        return read_trace(choice.trace, limit=choice.requests, speed=choice.speed)
    if max(choice.prompt, choice.output) > longest:
        raise ValueError(
            f"--in {choice.prompt} --out {choice.output}: each is at most half of the context, {longest} "
            "tokens; --max-model-len makes it longer"
        )
    lengths = Lengths(choice.prompt, choice.output, choice.prompt_spread, choice.output_spread, longest)
    count = (choice.requests or DEFAULT_REQUESTS) * instances
    if choice.users is not None:
        return closed_loop(choice.users, count, lengths, choice.seed, think=choice.think)
    assert choice.rate is not None
    return poisson(choice.rate, count, lengths, choice.seed, burstiness=choice.burstiness)


@dataclass(frozen=True, slots=True)
class GridChoice:
    """The options that can name several values, with commas between."""

    instance: str
    tp: str | None
    replicas: str | None
    dtype: str
    batch: str
    chunk: str | None
    policy: str


def grid_of(choice: GridChoice) -> Grid:
    """Raises ValueError."""
    from outcrop.simulate.serving import find_serving
    from outcrop.simulate.sweep import Grid
    from outcrop_compile.instances import INSTANCES
    from outcrop_compile.plan.request import DTYPES

    names = _list("--instance", choice.instance, str)
    if names == ["all"]:
        names = list(INSTANCES)
    for name in names:
        if name not in INSTANCES:
            raise ValueError(
                f"--instance {name}: not one with NeuronCore-v2; there are {', '.join(INSTANCES)}, or all"
            )
    dtypes = [dtype for dtype in DTYPES if dtype in (wanted := _list("--dtype", choice.dtype, str))]
    if unknown := [name for name in wanted if name not in DTYPES]:
        raise ValueError(f"--dtype {unknown[0]}: there are {', '.join(DTYPES)}")
    return Grid(
        instances=[INSTANCES[name] for name in names],
        tps=_counts("--tp", choice.tp),
        replicas=_counts("--replicas", choice.replicas),
        dtypes=dtypes,
        batches=_list("--batch", choice.batch, int),
        chunks=_counts("--chunk", choice.chunk),
        servings=[find_serving(name) for name in _list("--policy", choice.policy, str)],
    )


def _counts(option: str, text: str | None) -> Sequence[int | None]:
    return [None] if text is None else _list(option, text, int)


def _list(option: str, text: str, read: Callable[[str], T]) -> list[T]:
    try:
        found = [read(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{option} {text}: whole numbers, with commas between several") from None
    if not found:
        raise ValueError(f"{option}: nothing is named")
    if any(isinstance(each, int) and each < 1 for each in found):
        raise ValueError(f"{option} {text}: it has to be at least 1")
    return found


def base_request(model: str, grid: Grid, max_model_len: int | None, block_size: int) -> PlanRequest:
    """Raises ValueError."""
    from outcrop.cli.compile.models import model_config
    from outcrop_compile.plan import PlanRequest

    name, config = model_config(model)
    return PlanRequest(
        name,
        config,
        grid.instances[0],
        tp=grid.tps[0],
        max_model_len=max_model_len,
        batch=grid.batches[0],
        block_size=block_size,
        dtype=grid.dtypes[0],
    )


def hourly_prices(
    grid: Grid, price: float | None, option: str, region: str, own: Path | None
) -> tuple[dict[str, float], list[str]]:
    """Dollars of an hour by instance, and what a reader has to know of them. price: for all, instead of the
    price files. Raises ValueError."""
    import datetime

    from outcrop.cost.prices import load_prices, purchase_option

    if price is not None:
        if not 0 < price < math.inf:
            raise ValueError(f"--price {price}: dollars of an hour, above 0")
        return {instance.name: price for instance in grid.instances}, []
    book, today = load_prices(own), datetime.date.today()
    found: dict[str, float] = {}
    said: list[str] = []
    for instance in grid.instances:
        quote = book.instance(instance.name, region, purchase_option(option))
        found[instance.name] = float(quote.price.usd_per_hour)
        said += quote.warnings(today)
    return found, said
