"""Which configuration holds an SLO under a load, and which of these is the cheapest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from outcrop.simulate.figures import Figures, figures
from outcrop.simulate.fleet import simulate
from outcrop.simulate.machine import Machine, make_machine
from outcrop.simulate.serving import Serving
from outcrop.simulate.slo import Slo
from outcrop.simulate.step_time import StepModel
from outcrop.simulate.trace import ClosedLoop, Trace
from outcrop_compile.instances import Instance
from outcrop_compile.plan import Dtype, PlanRefused, PlanRequest

Load = Trace | ClosedLoop

Loads = Callable[[int], Load]
"""The whole load, as it is put to so many instances: of a drawn one, enough requests for each."""

MOST_INSTANCES = 64


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of these is tried. tps: None for the plan's choice. replicas: None for as many as
    there is room for. chunks: tokens of the widest prefill bucket, None for those of the plan."""

    instances: Sequence[Instance]
    tps: Sequence[int | None] = (None,)
    replicas: Sequence[int | None] = (None,)
    dtypes: Sequence[Dtype] = ("bfloat16",)
    batches: Sequence[int] = (32,)
    chunks: Sequence[int | None] = (None,)
    servings: Sequence[Serving] = ()

    def __len__(self) -> int:
        axes = (
            self.instances, self.tps, self.replicas, self.dtypes, self.batches, self.chunks, self.servings,
        )  # fmt: skip
        count = 1
        for axis in axes:
            count *= len(axis)
        return count


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration under its share of the load, `instances` of it taking all. figures: of one of these.
    dollars_per_hour: of all."""

    machine: Machine
    chunk: int | None
    instances: int
    figures: Figures
    dollars_per_hour: float

    @property
    def name(self) -> str:
        machine = self.machine
        chunk = "" if self.chunk is None else f", chunks of {self.chunk}"
        dtype = machine.plan.request.dtype
        return f"{self.instances} x {machine.name}{chunk}" + ("" if dtype == "bfloat16" else f", {dtype}")

    @property
    def per_million_tokens(self) -> float:
        """Dollars a million tokens, in and out, under this load."""
        one = self.figures.per_million_tokens  # what an instance costs and does is the same of each
        return float("inf") if one is None else one

    @property
    def tokens_per_user(self) -> float:
        """Tokens a second that half of the clients see at least."""
        return 1000 / self.figures.tpot.p50 if self.figures.tpot.p50 else 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """A combination that cannot be."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Sweep:
    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]

    @property
    def best(self) -> Candidate | None:
        """The cheapest that holds the SLO; among equals the one with the most goodput."""
        holding = [each for each in self.candidates if each.figures.holds_slo]
        return min(holding, key=lambda each: (each.dollars_per_hour, -each.figures.goodput), default=None)

    def frontier(self) -> list[Candidate]:
        """Those to which no other is both cheaper a token and faster for a client, the fastest first."""
        found: list[Candidate] = []
        for each in sorted(
            self.candidates, key=lambda each: (-each.tokens_per_user, each.per_million_tokens)
        ):
            if not found or each.per_million_tokens < found[-1].per_million_tokens:
                found.append(each)
        return found


def sweep(
    base: PlanRequest,
    grid: Grid,
    loads: Loads,
    slo: Slo,
    model: StepModel,
    prices: Mapping[str, float],
    *,
    most_instances: int = MOST_INSTANCES,
    progress: Callable[[str, float], None] = lambda name, fraction: None,
) -> Sweep:
    """Try every combination, each with the fewest instances that hold the SLO, or, where `most_instances` are
    not enough or more would not help, with so many as were tried. The instances take turns. base: whatever
    the grid does not vary. prices: dollars of an hour by instance. progress: called with what is tried and
    the share of combinations done."""
    candidates: list[Candidate] = []
    refused: list[Refused] = []
    for number, (request, count, chunk, serving) in enumerate(_combinations(base, grid)):
        name = f"{request.instance.name} tp{request.tp or '?'} {serving.name}"
        progress(name, number / len(grid))
        try:
            machine = make_machine(request, serving, model, replicas=count, chunk=chunk)
        except (PlanRefused, ValueError) as error:
            refused.append(Refused(name, str(error)))
            continue
        price = prices[request.instance.name]
        instances, found = _fewest(machine, loads, slo, price, most_instances)
        candidates.append(Candidate(machine, chunk, instances, found, instances * price))
    progress("done", 1.0)
    return Sweep(tuple(candidates), tuple(refused))


def _combinations(
    base: PlanRequest, grid: Grid
) -> Iterator[tuple[PlanRequest, int | None, int | None, Serving]]:
    axes: Iterable[tuple[Instance, int | None, int | None, Dtype, int, int | None, Serving]] = product(
        grid.instances, grid.tps, grid.replicas, grid.dtypes, grid.batches, grid.chunks, grid.servings
    )
    for instance, tp, count, dtype, batch, chunk, serving in axes:
        yield replace(base, instance=instance, tp=tp, dtype=dtype, batch=batch), count, chunk, serving


def _fewest(
    machine: Machine, loads: Loads, slo: Slo, price: float, most_instances: int
) -> tuple[int, Figures]:
    """The least number of instances with which it holds: double, then halve the distance."""
    tried: dict[int, Figures] = {}

    def holds(instances: int) -> bool:
        tried[instances] = figures(simulate(machine, share_of(loads(instances), instances)), slo, price)
        return tried[instances].holds_slo

    too_few, enough = 0, 1
    while not holds(enough):
        if too_few and _hopeless(tried[too_few], tried[enough], slo):
            return too_few, tried[too_few]
        if enough == most_instances:
            return enough, tried[enough]
        too_few, enough = enough, min(2 * enough, most_instances)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if holds(middle):
            enough = middle
        else:
            too_few = middle
    return enough, tried[enough]


def _hopeless(fewer: Figures, more: Figures, slo: Slo) -> bool:
    """Whether no number of instances will do: nobody waits for a turn any more, and twice as many changed
    nothing."""
    return more.queue.p99 < 0.1 * slo.ttft and more.good_share < fewer.good_share + 0.001


def share_of(load: Load, instances: int) -> Load:
    """What one of so many instances gets if they take turns."""
    if isinstance(load, ClosedLoop):
        users = max(1, -(-load.users // instances))
        return ClosedLoop(_every(load.requests, instances), users, load.think)
    return _every(load, instances)


def _every(trace: Trace, step: int) -> Trace:
    return replace(
        trace, arrival=trace.arrival[::step], prompt=trace.prompt[::step], output=trace.output[::step]
    )
