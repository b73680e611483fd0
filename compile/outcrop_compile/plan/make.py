"""From a request to a plan, or to what would be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan.plan import Plan, fit
from outcrop_compile.plan.refusal import Limit, PlanRefused, Suggestion
from outcrop_compile.plan.request import PlanRequest

_USUAL_DEGREE = 8
"""Beyond it key-value heads are copied, and collectives cost as much as the weights: replicas do more."""
_LENGTHS = tuple(1 << n for n in range(17, 7, -1))
_BATCHES = (256, 128, 64, 48, 32, 24, 16, 12, 8, 6, 4, 2, 1)


def make_plan(request: PlanRequest) -> Plan:
    """Raises PlanRefused with suggestions."""
    try:
        return _plan(request)
    except PlanRefused as refusal:
        raise PlanRefused(refusal.limit, refusal.reason, tuple(_suggestions(request))) from None


def _plan(request: PlanRequest) -> Plan:
    if request.tp is not None:
        return fit(request, request.tp)
    refusals = {}
    for tp in _degrees(request):
        try:
            return fit(request, tp)
        except PlanRefused as refusal:
            refusals[refusal.limit is not Limit.DEGREE, tp] = refusal
    # That of the most cores, which came nearest.
    raise refusals[max(refusals)]


def _degrees(request: PlanRequest) -> list[int]:
    """In the order in which they are to be tried: as many cores as usual, if replicas of them leave none
    over; then fewer; then all that there are."""
    degrees, cores = request.instance.degrees, request.instance.cores
    usual = [tp for tp in degrees if tp <= _USUAL_DEGREE and cores % tp == 0]
    rest = [tp for tp in degrees if tp not in usual]
    return usual[::-1] + rest[::-1]


def _suggestions(request: PlanRequest) -> Iterator[Suggestion]:
    """The least change of each kind that helps; where none does, the least of several together."""
    kinds = (_fewer_rows, _shorter, _quantised, _other_degree, _larger)
    found = [each for kind in kinds if (each := _first(request, kind(request)))]
    if not found and (each := _first(request, _together(request))):
        found = [each]
    yield from found


def _first(request: PlanRequest, candidates: Iterable[PlanRequest]) -> Suggestion | None:
    for changed in candidates:
        try:
            tp = _plan(changed).tp
        except PlanRefused:
            continue
        if request.tp is not None:
            changed = replace(changed, tp=tp)
        return Suggestion(changed, _changes(request, changed))
    return None


def _changes(request: PlanRequest, changed: PlanRequest) -> str:
    """The options in which they differ."""
    options = {
        "--instance": (request.instance.name, changed.instance.name),
        "--tp": (request.tp, changed.tp),
        "--dtype": (request.dtype, changed.dtype),
        "--max-model-len": (request.length, changed.length),
        "--batch": (request.batch, changed.batch),
    }
    return " ".join(f"{name} {new}" for name, (old, new) in options.items() if new != old)


def _fewer_rows(request: PlanRequest) -> Iterator[PlanRequest]:
    return (replace(request, batch=batch) for batch in _BATCHES if batch < request.batch)


def _shorter(request: PlanRequest) -> Iterator[PlanRequest]:
    return (replace(request, max_model_len=length) for length in _LENGTHS if length < request.length)


def _quantised(request: PlanRequest) -> Iterator[PlanRequest]:
    if request.dtype != "int8":
        yield replace(request, dtype="int8")


def _other_degree(request: PlanRequest) -> Iterator[PlanRequest]:
    if request.tp is not None:
        yield from (replace(request, tp=tp) for tp in request.instance.degrees)


def _larger(request: PlanRequest) -> Iterator[PlanRequest]:
    for other in INSTANCES.values():
        if other.cores > request.instance.cores:
            yield replace(request, instance=other, tp=None)


def _together(request: PlanRequest) -> Iterator[PlanRequest]:
    small = replace(request, tp=None, dtype="int8")
    for each in (small, *_larger(small)):
        for length in (request.length, *(length for length in _LENGTHS if length < request.length)):
            for batch in sorted({request.batch, min(8, request.batch), 1}, reverse=True):
                yield replace(each, max_model_len=length, batch=batch)
