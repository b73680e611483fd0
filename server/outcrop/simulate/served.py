"""The published closed loops, simulated: a test of the whole, to which nothing was fitted."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop.engine.policy import Interleave
from outcrop.simulate.anchors import Served, served
from outcrop.simulate.figures import Figures, figures
from outcrop.simulate.fleet import simulate
from outcrop.simulate.machine import Machine, make_machine
from outcrop.simulate.serving import Ahead, Serving
from outcrop.simulate.slo import ANY
from outcrop.simulate.step_time import StepModel, step_model
from outcrop.simulate.trace import ClosedLoop, Lengths, closed_loop
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan import PlanRequest
from outcrop_compile.shapes import find_shape

_OPTIMUM = Serving("optimum-neuron", Interleave(), ahead=Ahead.NONE)
"""Its runner decodes, then computes a prompt, in one call; asynchronous scheduling is switched off on Neuron
(benchmark/vllm/llama-3.1-8b-inf2-report.md of huggingface/optimum-neuron)."""

_PROMPT, _ANSWER = 1500, 250
_ROUNDS = 8  # requests a user, enough for beginning and end to weigh little


@dataclass(frozen=True, slots=True)
class Loop:
    """A published loop beside its simulation. output_error etc.: 0.1 is 10 % too much; ttft and itl are of
    means, as guidellm reports them."""

    anchor: Served
    figures: Figures
    ttft_ms: float
    itl_ms: float

    @property
    def output_error(self) -> float:
        return self.figures.output_tokens_per_s / self.anchor.tokens_per_s - 1

    @property
    def ttft_error(self) -> float:
        return self.ttft_ms / self.anchor.ttft_ms - 1

    @property
    def itl_error(self) -> float:
        return self.itl_ms / self.anchor.itl_ms - 1


def serve_anchors(model: StepModel | None = None) -> tuple[Loop, ...]:
    return tuple(_serve(anchor, model or step_model()) for anchor in served())


def _serve(anchor: Served, model: StepModel) -> Loop:
    load = _load(anchor)
    run = simulate(_machine(anchor, model), load)
    lives = run.lives
    rest = lives.tokens - 1
    return Loop(
        anchor,
        figures(run, ANY),
        float((lives.first - lives.arrival).mean()) / 1e6 + 1e3 * model.host.request,
        float((lives.last - lives.first).sum() / rest.sum()) / 1e6,
    )


def _load(anchor: Served) -> ClosedLoop:
    lengths = Lengths(_PROMPT, _ANSWER, 0.1, 0.08, anchor.context // 2)
    return closed_loop(anchor.users, anchor.users * _ROUNDS, lengths, seed=1)


def _machine(anchor: Served, model: StepModel) -> Machine:
    """One decode graph of all rows and the whole context, as these servers compile it."""
    shape = find_shape(anchor.model)
    assert shape is not None
    request = PlanRequest(
        shape.name,
        shape.config,
        INSTANCES[anchor.instance],
        tp=anchor.tp,
        max_model_len=anchor.context,
        batch=anchor.rows,
    )
    blocks = anchor.context // request.block
    buckets = (
        Bucket(StepKind.DECODE, anchor.rows, 1, blocks),
        Bucket(StepKind.PREFILL, 1, anchor.chunk, blocks),
    )
    return make_machine(request, _OPTIMUM, model, replicas=anchor.replicas, buckets=buckets)
