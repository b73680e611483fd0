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


Candidate = tuple[PlanRequest, str]


def _suggestions(request: PlanRequest) -> Iterator[Suggestion]:
    """The least change of each kind that helps; where none does, the least of several together."""
    kinds = (_fewer_rows, _shorter, _quantised, _other_degree, _larger)
    found = [each for kind in kinds if (each := _first(kind(request)))]
    if not found and (each := _first(_together(request))):
        found = [each]
    yield from found


def _first(candidates: Iterable[Candidate]) -> Suggestion | None:
    return next((Suggestion(*each) for each in candidates if _admitted(each[0])), None)


def _fewer_rows(request: PlanRequest) -> Iterator[Candidate]:
    for batch in _BATCHES:
        if batch < request.batch:
            yield replace(request, batch=batch), f"--batch {batch}"


def _shorter(request: PlanRequest) -> Iterator[Candidate]:
    for length in _LENGTHS:
        if length < request.length:
            yield replace(request, max_model_len=length), f"--max-model-len {length}"


def _quantised(request: PlanRequest) -> Iterator[Candidate]:
    if request.dtype != "int8":
        yield replace(request, dtype="int8"), "--dtype int8"


def _other_degree(request: PlanRequest) -> Iterator[Candidate]:
    if request.tp is not None:
        for tp in request.instance.degrees:
            yield replace(request, tp=tp), f"--tp {tp}"


def _larger(request: PlanRequest) -> Iterator[Candidate]:
    for name, other in INSTANCES.items():
        if other.cores > request.instance.cores:
            yield replace(request, instance=other, tp=None), f"--instance {name}"


def _together(request: PlanRequest) -> Iterator[Candidate]:
    small = replace(request, tp=None, dtype="int8")
    instances = [small, *(each for each, _ in _larger(small))]
    for each in instances:
        for length in (request.length, *(length for length in _LENGTHS if length < request.length)):
            for batch in sorted({request.batch, min(8, request.batch), 1}, reverse=True):
                yield (
                    replace(each, max_model_len=length, batch=batch),
                    f"--instance {each.instance.name} --dtype int8 --max-model-len {length} --batch {batch}",
                )


def _admitted(request: PlanRequest) -> bool:
    try:
        _plan(request)
    except PlanRefused:
        return False
    return True
