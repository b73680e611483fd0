"""Invariants 1 to 19 and 24 on the scheduler, planner and fake model, driven through random lives: requests
come and go, steps are submitted and collected out of phase, memory is scarce."""

import dataclasses
import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reference import OftenRight, ToyMatcher, answer, capabilities

from outcrop.backends.base import Capabilities, StepInput, StepOutput
from outcrop.backends.fake import FakeBackend
from outcrop.engine.buckets import BucketTable
from outcrop.engine.draws import draws, streams
from outcrop.engine.messages import (
    BACKGROUND,
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    SamplingParams,
)
from outcrop.engine.plan import StepPlanner
from outcrop.engine.policy import POLICIES
from outcrop.engine.request import Request, Status
from outcrop.engine.scheduled_step import ScheduledStep
from outcrop.engine.scheduler import RefusedError, Scheduler
from outcrop_compile.bucket import StepKind

prompts = st.tuples(st.integers(0, 13), st.lists(st.integers(1, 49), min_size=1, max_size=60)).map(
    lambda parts: list(range(1, parts[0] + 1)) + parts[1]
)

plain = st.just(SamplingParams(0))
edited = st.builds(
    SamplingParams,
    st.just(0),
    repetition_penalty=st.sampled_from([1.0, 1.25, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.25, -0.25]),
    logit_bias=st.dictionaries(st.integers(0, 49), st.sampled_from([-100.0, -0.25, 0.5]), max_size=20),
    grammar=st.sampled_from(["", "3 7", "2 30", "5 64", "stuck"]),
)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        depth=st.integers(1, 3),
        blocks=st.integers(25, 60),
        prefix_cache=st.booleans(),
        drafter=st.sampled_from([None, None, OftenRight(0.5), OftenRight(0.95)]),
    )
    def start(
        self, policy: str, depth: int, blocks: int, prefix_cache: bool, drafter: OftenRight | None
    ) -> None:
        self.caps = capabilities(depth=depth, num_blocks=blocks)
        self.backend = FakeBackend(self.caps)
        table = BucketTable(self.backend.buckets)
        self.policy = policy
        self.scheduler = Scheduler(
            self.caps, table, POLICIES[policy], prefix_cache=prefix_cache, drafter=drafter
        )
        self.planner = StepPlanner(self.caps, self.scheduler.slots)
        self.submitted: list[tuple[ScheduledStep, list[Request], StepInput, object]] = []
        self.copies: list[dict[str, np.ndarray]] = []
        self.messages: dict[str, GenerationRequest] = {}
        self.received: dict[str, list[int]] = {}
        self.finished: dict[str, FinishReason] = {}
        self.aborted: set[str] = set()
        self.unbuildable: set[str] = set()
        self.admitted_order: list[Request] = []
        self.head_waits = 0

    @rule(
        prompt=prompts,
        max_tokens=st.integers(1, 90),
        priority=st.sampled_from([0, 0, 0, 1, -1, BACKGROUND, BACKGROUND]),
        salt=st.sampled_from(["", "", "b"]),
        temperature=st.sampled_from([0.0, 0.7]),
        seed=st.integers(0, 2**63),
        edits=st.one_of(plain, edited),
    )
    def add(
        self,
        prompt: list[int],
        max_tokens: int,
        priority: int,
        salt: str,
        temperature: float,
        seed: int,
        edits: SamplingParams,
    ) -> None:
        name = str(len(self.messages))
        sampling = msgspec.structs.replace(
            edits, max_tokens=max_tokens, temperature=temperature, seed=seed, eos_ids=(0,)
        )
        message = GenerationRequest(name, prompt, sampling, priority, salt)
        assert self.scheduler.add(message) is None
        self.messages[name], self.received[name] = message, []

    @precondition(lambda self: self.scheduler.requests)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.scheduler.requests)))
        assert self.scheduler.abort(name)
        assert not self.scheduler.abort(name)
        self.aborted.add(name)

    @precondition(lambda self: self.building())
    @rule(data=st.data(), possible=st.sampled_from([True, True, True, False]))
    def build_grammar(self, data: st.DataObject, possible: bool) -> None:
        name = data.draw(st.sampled_from(self.building()))
        if not possible:
            self.unbuildable.add(name)
        self.built(name, possible)

    def building(self) -> list[str]:
        requests = self.scheduler.requests.values()
        return sorted(request.id for request in requests if request.status is Status.BUILDING)

    def built(self, name: str, possible: bool) -> None:
        grammar = self.messages[name].sampling.grammar
        matcher = ToyMatcher(grammar, self.caps.vocab_size)
        assert self.scheduler.grammar_built(name, grammar + " of another", matcher) is None
        delta = self.scheduler.grammar_built(name, grammar, matcher if possible else None)
        assert (delta is None) is possible
        self.take([delta] if delta is not None else [])
        assert self.scheduler.grammar_built(name, grammar, matcher) is None

    @rule(count=st.integers(1, 12))
    def run_steps(self, count: int) -> None:
        for _ in range(count):
            self.submit()
            if len(self.submitted) >= self.caps.depth:
                self.collect()

    @rule()
    def submit(self) -> None:
        if len(self.submitted) >= self.caps.depth:
            return
        ready = [r for r in self.scheduler.requests.values() if r.status is not Status.BUILDING]
        head = min(ready, key=lambda r: r.order, default=None)
        running_before = set(self.scheduler.running)
        others = any(not r.is_background for r in (*self.scheduler.running, *self.scheduler.waiting))
        step = self.scheduler.schedule()
        if step is not None and others:
            assert not any(request.is_background for request in requests_of(self.scheduler, step))
        self.check_admissions(running_before)
        self.check_head(head, step)
        if step is not None:
            plan = self.planner.build(step)
            check_plan(step, plan, self.caps, self.scheduler)
            handle = self.backend.submit(plan)
            self.submitted.append((step, requests_of(self.scheduler, step), plan, handle))
            self.copies.append({name: array.copy() for name, array in arrays(plan).items()})

    @rule()
    def collect(self) -> None:
        if self.submitted:
            step, _, _, handle = self.submitted.pop(0)
            self.copies.pop(0)
            self.take(self.scheduler.apply(step, self.backend.collect(handle)))

    def take(self, deltas: Iterable[GenerationDelta]) -> None:
        for delta in deltas:
            name = delta.request_id
            assert name not in self.finished
            assert name not in self.aborted
            self.received[name] += delta.tokens
            # A last token that is not the answer's counts, where there was one.
            unseen = {0, 1} if delta.finish in (FinishReason.EOS, FinishReason.GRAMMAR) else {0}
            assert delta.generated - len(self.received[name]) in unseen
            if delta.finish is not None:
                self.finished[name] = delta.finish

    def check_admissions(self, running_before: set[Request]) -> None:
        for request in set(self.scheduler.running) - running_before:
            for other in self.scheduler.waiting:
                assert other.order > request.order

    def check_head(self, head: Request | None, step: ScheduledStep | None) -> None:
        if head is None:
            self.head_waits = 0
            return
        draining = head.status is Status.DRAINING
        assert not draining or self.scheduler.in_flight(head), "the first request was preempted"
        in_step = step is not None and head.slot in step.slots
        slots = self.scheduler.slots
        if in_step or (slots.decoding[head.slot] and slots.total[head.slot] >= head.limit):
            self.head_waits = 0
        elif self.policy == "interleave" and step is not None:
            self.head_waits += 1
            assert self.head_waits <= 2 + 2 * self.caps.depth

    @invariant()
    def every_block_and_slot_is_accounted_for(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        scheduler, pool = self.scheduler, self.scheduler.pool
        holders = [*scheduler.running, *scheduler.draining]
        held = [block for request in holders for block in scheduler.slots.blocks(request.slot)]
        for block in range(self.caps.num_blocks):
            assert pool.count(block) == held.count(block)
        assert pool.num_free == self.caps.num_blocks - len(set(held))
        slots = [request.slot for request in holders]
        assert len(set(slots)) == len(slots)
        assert sorted([*slots, *scheduler.slots.free]) == list(range(self.caps.max_rows))

    @invariant()
    def nothing_a_submitted_step_touches_has_changed_hands(self) -> None:
        for step, requests, plan, _ in getattr(self, "submitted", []):
            ends = step.ends.tolist()
            for index, (request, end) in enumerate(zip(requests, ends, strict=True)):
                assert request.slot == plan.slots[index]
                needed = -(-end // self.caps.block_size)
                blocks = self.scheduler.slots.blocks(request.slot)
                assert blocks[:needed] == plan.block_tables[index][:needed].tolist()

    @invariant()
    def what_a_submitted_step_may_read_has_not_changed(self) -> None:
        """Though steps share arrays."""
        for (step, _, plan, _), copies in zip(getattr(self, "submitted", []), self.copies, strict=True):
            tables = copies.pop("block_tables")
            assert all(
                (copies[name] == array).all() for name, array in arrays(plan).items() if name in copies
            )
            copies["block_tables"] = tables
            for index, end in enumerate(step.ends.tolist()):
                needed = -(-end // self.caps.block_size)
                assert (tables[index, :needed] == plan.block_tables[index, :needed]).all()
            assert plan.block_tables.min() >= 0
            assert plan.block_tables.max() <= self.caps.num_blocks

    @invariant()
    def the_columns_agree_with_the_requests(self) -> None:
        """Of running and draining requests, and of nothing else."""
        if not hasattr(self, "scheduler"):
            return
        scheduler, slots = self.scheduler, self.scheduler.slots
        holders = [*scheduler.running, *scheduler.draining]
        assert {r.slot for r in holders} == {s for s, owner in enumerate(slots.owners) if owner is not None}
        flags = slots.decoding | slots.live | slots.edited | slots.follows | slots.background
        assert set(flags.nonzero()[0].tolist()) <= {request.slot for request in holders}
        assert slots.followers == slots.follows.sum()
        assert slots.backgrounds == slots.background.sum()
        assert scheduler.prefilling == [r for r in scheduler.running if not slots.decoding[r.slot]]
        for request in holders:
            running = request.status is Status.RUNNING
            assert slots.owners[request.slot] is request
            assert slots.live[request.slot] == (request.finish is None)
            assert running or not slots.decoding[request.slot]
            asked = sum(
                bool(step.samples[requests.index(request)])
                for step, requests, _, _ in self.submitted
                if request in requests
            )
            if request.finish is None:
                assert slots.total[request.slot] - slots.known[request.slot] == asked
            known = slots.known_tokens(request.slot)
            message = self.messages[request.id]
            assert known[: len(message.prompt)] == message.prompt
            received = self.received[request.id]
            assert known[len(message.prompt) :][: len(received)] == received

    @invariant()
    def what_follows_its_tokens_is_in_one_submitted_step_at_most(self) -> None:
        submitted = getattr(self, "submitted", [])
        rows = [
            request
            for step, requests, _, _ in submitted
            for request, sampled in zip(requests, step.samples.tolist(), strict=True)
            if sampled
        ]
        for request in rows:
            guessed = self.scheduler.drafter is not None
            if guessed or (request.edits is not None and request.edits.follows_tokens):
                assert rows.count(request) == 1

    @invariant()
    def what_is_being_built_holds_nothing(self) -> None:
        if hasattr(self, "scheduler"):
            for name in self.building():
                request = self.scheduler.requests[name]
                assert request.slot == -1
                for holders in (self.scheduler.waiting, self.scheduler.running, self.scheduler.draining):
                    assert request not in holders

    def teardown(self) -> None:
        """Let everything finish: nothing is lost, nothing leaks, every answer is the model's."""
        if not hasattr(self, "scheduler"):
            return
        for name in self.building():
            self.built(name, possible=True)
        for _ in range(20_000):
            if self.scheduler.idle and not self.submitted:
                break
            self.run_steps(1)
            if self.submitted:
                self.collect()
        assert self.scheduler.idle, "requests are stuck"
        assert self.scheduler.pool.num_free == self.caps.num_blocks
        for name, message in self.messages.items():
            if name in self.unbuildable:
                assert (self.received[name], self.finished[name]) == ([], FinishReason.GRAMMAR)
            elif name not in self.aborted:
                assert (self.received[name], self.finished[name]) == answer(message, self.caps)


def requests_of(scheduler: Scheduler, step: ScheduledStep) -> list[Request]:
    requests: list[Request] = scheduler.slots.owners[step.slots].tolist()
    return requests


def arrays(plan: StepInput) -> dict[str, np.ndarray]:
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    return {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}


def check_plan(step: ScheduledStep, plan: StepInput, caps: Capabilities, scheduler: Scheduler) -> None:
    sink = caps.num_blocks
    assert plan.block_tables.min() >= 0
    assert plan.block_tables.max() <= sink
    assert plan.slots.max() <= caps.max_rows
    assert plan.positions.max() < caps.max_model_len
    for array in (plan.token_ids, plan.use_last, plan.positions, plan.slot_mapping, plan.block_tables):
        assert array.dtype == np.int32
    blocks = plan.slot_mapping // caps.block_size
    requests = requests_of(scheduler, step)
    for index, (request, start, end) in enumerate(
        zip(requests, step.starts.tolist(), step.ends.tolist(), strict=True)
    ):
        count = end - start
        written = set(blocks[index, :count].tolist())
        for block in written:
            assert scheduler.pool.count(block) == 1
            assert scheduler.cache is None or not scheduler.cache.is_cached(block)
        held = scheduler.slots.blocks(request.slot)
        assert written <= set(held)
        assert (blocks[index, count:] == sink).all()
        # The row's columns say what its request says, however they came to be in this plan.
        lanes = list(range(start, end))
        assert plan.positions[index, :count].tolist() == lanes
        size = caps.block_size
        assert plan.slot_mapping[index, :count].tolist() == [held[p // size] * size + p % size for p in lanes]
        assert plan.block_tables[index, : len(held)].tolist() == held[: step.bucket.blocks]
        assert (plan.block_tables[index, len(held) :] == sink).all()
        assert plan.context_lens[index] == end
        assert plan.slots[index] == request.slot
        sampling = request.sampling
        assert plan.sampling[index].tolist() == pytest.approx(
            [sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p]
        )
        stream = streams(np.array([sampling.seed % 2**64], dtype=np.uint64))
        if step.bucket.kind is StepKind.VERIFY:
            places = np.array(lanes) + 1
            assert plan.draws[index, : len(lanes)].tolist() == draws(stream, places).tolist()
        else:
            assert plan.draws[index] == draws(stream, np.array([end]))[0]
        if step.bucket.kind is StepKind.PREFILL:
            known = scheduler.slots.known_tokens(request.slot)
            assert plan.token_ids[index, :count].tolist() == known[start:end]
    padding = slice(len(requests), None)
    assert (plan.slots[padding] == caps.max_rows).all()
    assert not plan.context_lens[padding].any()
    assert (blocks[padding] == sink).all()
    assert not plan.sampled[padding].any()
    check_edits(step, requests, plan, caps)


def check_edits(step: ScheduledStep, requests: list[Request], plan: StepInput, caps: Capabilities) -> None:
    """The plain graph unless a row wants edits, and no edits of any row but those."""
    edits = [r.edits if s else None for r, s in zip(requests, step.samples.tolist(), strict=True)]
    edits += [None] * (step.bucket.rows - len(edits))
    wanted = {
        "allowed": [e is not None and e.matcher is not None for e in edits],
        "bias": [e is not None and e.bias is not None for e in edits],
        "repetition": [e is not None and e.repetition is not None for e in edits],
    }
    neutral = {"allowed": -1, "bias": 0, "repetition": 1}
    for name, rows in wanted.items():
        array = getattr(plan, name)
        assert (array is not None) == any(rows)
        if array is not None:
            words = -(-caps.vocab_size // 32)
            assert array.shape == (step.bucket.rows, words if name == "allowed" else caps.vocab_size)
            assert (array[[not row for row in rows]] == neutral[name]).all()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=120, stateful_step_count=50)


def make(**changes: int) -> tuple[Scheduler, Capabilities]:
    caps = capabilities(**changes)
    return Scheduler(caps, BucketTable(FakeBackend(caps).buckets), POLICIES["interleave"]), caps


def request(name: str, length: int, *, max_tokens: int = 4, priority: int = 0) -> GenerationRequest:
    return GenerationRequest(name, list(range(1, length + 1)), SamplingParams(max_tokens), priority)


def output(step: ScheduledStep, token: int = 9) -> StepOutput:
    rows = step.bucket.rows
    return StepOutput(0, np.full(rows, token, np.int32), np.ones(rows, np.uint8), 0)


def test_requests_that_can_never_run_are_refused() -> None:
    scheduler, _ = make()
    with pytest.raises(RefusedError, match="100 tokens; the context holds 100"):
        scheduler.add(request("a", 100))
    with pytest.raises(RefusedError, match="empty"):
        scheduler.add(GenerationRequest("b", [], SamplingParams(1)))
    scheduler.add(request("c", 3))
    with pytest.raises(RefusedError, match="already here"):
        scheduler.add(request("c", 3))


def test_a_context_larger_than_the_kv_memory_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="max_model_len 100 needs more than the 24 KV blocks"):
        make(num_blocks=24)


def test_a_resumed_request_that_was_complete_ends_at_once() -> None:
    scheduler, _ = make()
    message = GenerationRequest("a", [1, 2], SamplingParams(max_tokens=2), resumed=[5, 6])
    delta = scheduler.add(message)
    assert delta is not None
    assert (delta.finish, delta.generated) == (FinishReason.LENGTH, 2)
    assert scheduler.idle


def test_an_abort_frees_the_blocks_when_the_submitted_steps_are_in() -> None:
    scheduler, caps = make()
    scheduler.add(request("a", 10))
    first = scheduler.schedule()
    second = scheduler.schedule()
    assert first is not None
    assert second is not None
    scheduler.abort("a")
    assert scheduler.pool.num_free < caps.num_blocks
    assert not scheduler.apply(first, output(first))
    assert not scheduler.apply(second, output(second))
    assert scheduler.pool.num_free == caps.num_blocks
    assert scheduler.idle


def test_a_row_that_is_not_finite_fails_alone() -> None:
    scheduler, _ = make()
    scheduler.add(request("a", 20))
    scheduler.add(request("b", 21))
    step = scheduler.schedule()
    assert step is not None
    assert [request.id for request in requests_of(scheduler, step)] == ["a", "b"]
    bad = output(step)
    bad.finite[0] = 0
    deltas = {delta.request_id: delta.finish for delta in scheduler.apply(step, bad)}
    assert deltas == {"a": FinishReason.ERROR, "b": None}


def test_prefill_and_decode_alternate_while_both_wait() -> None:
    scheduler, _ = make()
    scheduler.add(request("a", 10, max_tokens=40))
    kinds = []
    for index in range(6):
        step = scheduler.schedule()
        assert step is not None
        kinds.append(str(step.bucket.kind))
        scheduler.apply(step, output(step))
        scheduler.add(GenerationRequest(f"prompt {index}", [index] * 20, SamplingParams(5)))
    assert kinds == ["prefill", "decode"] * 3


def test_a_higher_priority_request_takes_the_place_of_a_lower_one() -> None:
    scheduler, _ = make(max_rows=1)
    scheduler.add(request("low", 10, max_tokens=50))
    step = scheduler.schedule()
    assert step is not None
    scheduler.apply(step, output(step))
    scheduler.add(request("high", 10, priority=1))
    seen = []
    while not scheduler.idle:
        step = scheduler.schedule()
        if step is None:
            continue
        seen.append(requests_of(scheduler, step)[0].id)
        scheduler.apply(step, output(step))
    assert "low" not in seen[seen.index("high") : seen.index("high") + 4]
    assert seen[-1] == "low"
    assert scheduler.totals.preemptions == 1


def test_the_background_stands_still_while_another_runs() -> None:
    scheduler, _ = make()
    scheduler.add(request("background", 10, max_tokens=30, priority=BACKGROUND))
    seen: list[list[str]] = []

    def step() -> None:
        scheduled = scheduler.schedule()
        assert scheduled is not None
        seen.append([each.id for each in requests_of(scheduler, scheduled)])
        scheduler.apply(scheduled, output(scheduled))

    for _ in range(3):
        step()
    scheduler.add(request("online", 10, max_tokens=5))
    while not scheduler.idle:
        step()
    assert seen[:3] == [["background"]] * 3
    assert seen[3:8] == [["online"]] * 5
    assert seen[8:] == [["background"]] * (len(seen) - 8)
    assert scheduler.totals.preemptions == 0  # it kept what it had


def calls(function: Callable[[], object]) -> int:
    """How many calls, of Python and of C functions, running it takes."""
    counts: Counter[str] = Counter()
    gc.collect()
    gc.disable()  # a collection calls whoever asked to be told of one, Hypothesis for example
    sys.setprofile(lambda frame, event, argument: counts.update([event]))
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return counts["call"] + counts["c_call"]


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_a_step_that_gives_every_row_a_token_takes_the_same_calls_whatever_the_rows(
    prefix_cache: bool,
) -> None:
    taken = {}
    for rows in (2, 16):
        caps = capabilities(max_rows=rows, num_blocks=25 * rows, block_size=16, max_model_len=400)
        table = BucketTable(FakeBackend(caps).buckets)
        scheduler = Scheduler(caps, table, POLICIES["prefill-first"], prefix_cache=prefix_cache)
        planner = StepPlanner(caps, scheduler.slots)
        for index in range(rows):
            scheduler.add(GenerationRequest(str(index), [1 + index] * 17, SamplingParams(60, eos_ids=(3,))))

        def advance(scheduler: Scheduler = scheduler, planner: StepPlanner = planner) -> ScheduledStep:
            step = scheduler.schedule()
            assert step is not None
            planner.build(step)
            scheduler.apply(step, output(step))
            return step

        while len(advance().slots) < rows:
            pass
        advance()
        taken[rows] = [calls(advance) for _ in range(8)]
        assert scheduler.slots.known[:rows].tolist() == [scheduler.slots.known[0]] * rows
    assert taken[2] == taken[16]
