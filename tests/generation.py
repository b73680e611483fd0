"""Answers of a backend, through the engine's core."""

from __future__ import annotations

from demo import prompts

from outcrop.backends.base import Backend
from outcrop.engine.buckets import BucketTable
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop.engine.speculation import Drafter


def generate(
    engine: Backend,
    wanted: list[GenerationRequest],
    *,
    stagger: int = 0,
    narrow: bool = False,
    drafter: Drafter | None = None,
) -> tuple[dict[str, list[int]], EngineCore]:
    """Every answer. stagger: steps between one request's arrival and the next one's. narrow: prefill in
    chunks of 16 tokens."""
    core = EngineCore(engine, Interleave(), drafter=drafter)
    if narrow:
        core.scheduler.buckets = BucketTable(b for b in core.scheduler.buckets.buckets if b.width <= 16)
    answers: dict[str, list[int]] = {request.request_id: [] for request in wanted}
    pending, steps = list(wanted), 0
    while pending or not core.idle:
        while pending and (stagger == 0 or steps % stagger == 0):
            core.add(pending.pop(0))
            if stagger:
                break
        for delta in core.step():
            answers[delta.request_id] += delta.tokens
        steps += 1
    return answers, core


def requests(sampling: SamplingParams) -> list[GenerationRequest]:
    return [GenerationRequest(str(index), prompt, sampling) for index, prompt in enumerate(prompts())]
