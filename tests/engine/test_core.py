"""Invariants 7 to 10 and 15 to 17 end to end: whole lives against the sequential reference."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from reference import ToyMatcher, answer, capabilities

from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.engine.buckets import BucketTable
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest, SamplingParams
from outcrop.engine.policy import POLICIES
from outcrop.engine.speculation import NgramDrafter


class Client:
    """Collects what an engine delivers, and checks the order of it."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.tokens: dict[str, list[int]] = {}
        self.finish: dict[str, FinishReason] = {}
        self.cached: dict[str, int] = {}
        self.building: list[GenerationRequest] = []

    def add(self, request: GenerationRequest, *, build: bool = True) -> None:
        self.tokens[request.request_id] = list(request.resumed)
        refused = self.core.add(request)
        self.take(filter(None, [refused]))
        if refused is None and request.sampling.grammar:
            self.building.append(request)
            if build:
                self.build()

    def build(self) -> None:
        """The oldest grammar that is wanted is there."""
        request = self.building.pop(0)
        grammar = request.sampling.grammar
        matcher = ToyMatcher(grammar, self.core.backend.capabilities.vocab_size)
        self.take(filter(None, [self.core.grammar_built(request.request_id, grammar, matcher)]))

    def run(self, steps: int = 50_000) -> None:
        for _ in range(steps):
            if self.core.idle:
                return
            self.take(self.core.step())
        raise AssertionError("the engine did not come to rest")

    def take(self, deltas: Iterable[GenerationDelta]) -> None:
        for delta in deltas:
            assert delta.request_id not in self.finish
            self.tokens[delta.request_id] += delta.tokens
            self.cached[delta.request_id] = delta.cached
            if delta.finish is not None:
                self.finish[delta.request_id] = delta.finish


def random_requests(rng: random.Random, count: int) -> list[GenerationRequest]:
    requests = []
    for index in range(count):
        shared = list(range(1, rng.randrange(1, 14)))
        prompt = shared + [rng.randrange(1, 50) for _ in range(rng.randrange(1, 60))]
        sampling = SamplingParams(
            rng.randrange(1, 80), rng.choice([0.0, 0.9]), seed=rng.getrandbits(63), eos_ids=(0,),
            repetition_penalty=rng.choice([1.0, 1.0, 1.25]),
            frequency_penalty=rng.choice([0.0, 0.0, 0.25]),
            logit_bias={} if rng.random() < 0.7 else {rng.randrange(50): 0.5 for _ in range(9)},
            grammar=rng.choice(["", "", "3 40", "2 9"]),
        )  # fmt: skip
        requests.append(GenerationRequest(str(index), prompt, sampling, rng.choice([0, 0, 1])))
    return requests


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_answer_is_the_models_whatever_else_runs(depth: int, policy: str) -> None:
    preemptions = hits = 0
    for seed in range(6):
        rng = random.Random(seed)
        caps = capabilities(depth=depth)
        core = EngineCore(FakeBackend(caps), POLICIES[policy], prefix_cache=bool(seed % 3))
        client = Client(core)
        requests = random_requests(rng, 25)
        pending = list(requests)
        while pending or client.building or not core.idle:
            while pending and rng.random() < 0.3:
                client.add(pending.pop(), build=False)
            if client.building and rng.random() < 0.2:
                client.build()
            client.take(core.step())
        for request in requests:
            assert (client.tokens[request.request_id], client.finish[request.request_id]) == answer(
                request, caps
            )
        assert core.scheduler.pool.num_free == caps.num_blocks
        preemptions += core.stats().preemptions
        hits += core.stats().prefix_hits
    assert hits > 0
    assert preemptions > 0


PROMPT = [5, 3, 9, 9, 1, 4, 7, 2, 8, 6, 5, 3, 1, 2, 4, 4, 4, 9, 2, 7, 31, 44, 12]


EDITS = {
    "plain": SamplingParams(40, temperature=0.8, seed=11),
    "grammar": SamplingParams(40, temperature=0.8, seed=11, grammar="3 64"),
    "penalties": SamplingParams(
        40, temperature=0.8, seed=11, repetition_penalty=1.25, presence_penalty=0.5, frequency_penalty=0.25,
        logit_bias={4: 0.5, 8: -100.0},
    ),
}  # fmt: skip


def answer_with(situation: str, sampling: SamplingParams) -> list[int]:
    """The tokens of one request in one situation of an engine's life."""
    depth = 1 if situation == "depth 1" else 2
    caps = capabilities(
        depth=depth, num_blocks=30 if situation == "preempted" else 200, max_model_len=100, max_rows=4
    )
    core = EngineCore(FakeBackend(caps), POLICIES["interleave"])
    client = Client(core)
    request = GenerationRequest("it", PROMPT, sampling)
    others = [GenerationRequest(f"o{i}", [i + 1] * 50, SamplingParams(45)) for i in range(3)]
    if situation in ("batched", "preempted"):
        for other in others:
            client.add(other)
        client.add(request)
    elif situation == "joined late":
        for other in others:
            client.add(other)
        for _ in range(20):
            client.take(core.step())
        client.add(request)
    elif situation == "prefix hit":
        client.add(replace_id(request, "before"))
        client.run()
        client.add(request)
    elif situation == "resumed":
        whole = answer(request, caps)[0]
        client.add(GenerationRequest("it", PROMPT, request.sampling, resumed=whole[:13]))
    elif situation == "chunked":
        core.scheduler.buckets = BucketTable(b for b in core.scheduler.buckets.buckets if b.width <= 8)
        client.add(request)
    else:
        client.add(request)
    client.run()
    if situation == "prefix hit":
        assert client.cached["it"] == 20
    if situation == "preempted":
        assert core.stats().preemptions > 0
    assert client.finish["it"] is FinishReason.LENGTH
    return client.tokens["it"]


def replace_id(request: GenerationRequest, request_id: str) -> GenerationRequest:
    return GenerationRequest(request_id, request.prompt, request.sampling)


@pytest.mark.parametrize(
    "situation",
    ["depth 1", "batched", "joined late", "chunked", "prefix hit", "preempted", "resumed"],
)
@pytest.mark.parametrize("kind", sorted(EDITS))
def test_a_request_gives_the_same_tokens_in_every_situation(situation: str, kind: str) -> None:
    sampling = EDITS[kind]
    alone = answer_with("alone", sampling)
    assert alone == answer(GenerationRequest("it", PROMPT, sampling), capabilities())[0]
    assert answer_with(situation, sampling) == alone


@pytest.mark.parametrize("kind", ["grammar", "penalties"])
def test_a_request_that_follows_its_tokens_is_in_every_decode_step(kind: str) -> None:
    """And the others with it: neither it nor they take more steps than they have tokens."""
    steps: list[int] = []
    backend = FakeBackend(
        capabilities(num_blocks=200), FakeHooks(on_step=lambda s: steps.append(s.sampled.sum()))
    )
    client = Client(EngineCore(backend, POLICIES["interleave"]))
    for index in range(3):
        client.add(GenerationRequest(str(index), PROMPT[index:], SamplingParams(40)))
    client.add(GenerationRequest("it", PROMPT, EDITS[kind]))
    client.run()
    assert {len(tokens) for tokens in client.tokens.values()} == {40}
    assert len(steps) <= 40 + 4


def test_a_bias_alone_does_not_keep_the_engine_from_running_ahead() -> None:
    outstanding: list[int] = []
    backend = FakeBackend(capabilities())
    backend.hooks = replace(backend.hooks, on_step=lambda step: outstanding.append(len(backend._queue)))
    client = Client(EngineCore(backend, POLICIES["interleave"]))
    client.add(GenerationRequest("a", PROMPT, SamplingParams(20, logit_bias={7: -100.0})))
    client.run()
    assert outstanding.count(1) > 15


def test_a_grammar_that_can_only_end_ends_the_answer_without_another_step() -> None:
    steps: list[int] = []
    backend = FakeBackend(capabilities(depth=1), FakeHooks(on_step=lambda step: steps.append(step.step_id)))
    client = Client(EngineCore(backend, POLICIES["interleave"]))
    client.add(GenerationRequest("a", PROMPT, SamplingParams(20, grammar="50 5", logit_bias={0: -100.0})))
    client.run()
    assert (len(client.tokens["a"]), client.finish["a"]) == (5, FinishReason.EOS)
    assert len(steps) == 5


def test_an_answer_that_was_complete_when_the_engine_died_ends_when_its_grammar_is_there() -> None:
    caps = capabilities()
    request = GenerationRequest("a", PROMPT, SamplingParams(20, grammar="3 5"))
    whole, _ = answer(request, caps)
    client = Client(EngineCore(FakeBackend(caps), POLICIES["interleave"]))
    client.add(GenerationRequest("a", PROMPT, request.sampling, resumed=whole), build=False)
    assert client.core.idle
    assert client.finish == {}
    client.build()
    assert (client.tokens["a"], client.finish["a"]) == (whole, FinishReason.EOS)
    assert client.core.idle


def test_while_a_grammar_is_built_others_run_and_the_request_may_go() -> None:
    caps = capabilities()
    client = Client(EngineCore(FakeBackend(caps), POLICIES["interleave"]))
    late = GenerationRequest("late", PROMPT, SamplingParams(8, grammar="3 5"))
    gone = GenerationRequest("gone", PROMPT, SamplingParams(8, grammar="3 5"))
    client.add(late, build=False)
    client.add(gone, build=False)
    client.add(GenerationRequest("other", PROMPT, SamplingParams(8)))
    assert client.core.abort("gone")
    client.run()
    assert client.finish == {"other": FinishReason.LENGTH}
    client.build()
    client.build()
    client.run()
    assert client.tokens["late"] == answer(late, caps)[0]
    assert "gone" not in client.finish


def test_prefix_cache_entries_are_not_shared_between_salts() -> None:
    client = Client(EngineCore(FakeBackend(capabilities()), POLICIES["interleave"]))
    for name, salt in (("a", "one"), ("b", "two"), ("c", "one")):
        client.add(GenerationRequest(name, PROMPT, SamplingParams(2), cache_salt=salt))
        client.run()
    assert client.cached == {"a": 0, "b": 0, "c": 20}


def test_a_row_with_nan_fails_and_the_others_go_on() -> None:
    caps = capabilities()
    core = EngineCore(FakeBackend(caps, FakeHooks(nan=49)), POLICIES["interleave"])
    client = Client(core)
    good = GenerationRequest("good", PROMPT, SamplingParams(8))
    client.add(GenerationRequest("bad", [49, 1, 2], SamplingParams(8)))
    client.add(good)
    client.run()
    assert client.finish["bad"] is FinishReason.ERROR
    assert client.tokens["bad"] == []
    assert client.tokens["good"] == answer(good, caps)[0]


def test_a_refused_request_ends_with_an_error_and_no_other_is_harmed() -> None:
    client = Client(EngineCore(FakeBackend(capabilities()), POLICIES["interleave"]))
    client.add(GenerationRequest("long", [1] * 100, SamplingParams(8)))
    client.add(GenerationRequest("good", PROMPT, SamplingParams(8)))
    client.run()
    assert client.finish == {"long": FinishReason.ERROR, "good": FinishReason.LENGTH}


def test_a_device_error_reaches_the_caller() -> None:
    core = EngineCore(FakeBackend(capabilities(), FakeHooks(poison=49)), POLICIES["interleave"])
    core.add(GenerationRequest("bad", [49, 1, 2], SamplingParams(8)))
    with pytest.raises(RuntimeError, match="token 49"):
        Client(core).run()


def test_at_most_depth_steps_are_submitted_and_two_really_are() -> None:
    outstanding: list[int] = []
    caps = capabilities(depth=2)
    backend = FakeBackend(caps)
    backend.hooks = replace(backend.hooks, on_step=lambda step: outstanding.append(len(backend._queue)))
    client = Client(EngineCore(backend, POLICIES["interleave"]))
    client.add(GenerationRequest("a", PROMPT, SamplingParams(20)))
    client.run()
    assert max(outstanding) == 1  # beside the one being collected
    assert outstanding.count(1) > 15


@dataclass
class HostClock:
    """Time passes when the device is waited for, and when the host says so."""

    now: float = 1.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("depth", "idle_ms", "host_ms"), [(1, 4 * 3, 4 * 3), (2, 0, 5 * 3)])
def test_the_device_is_idle_while_it_waits_for_the_host_but_not_for_requests(
    depth: int, idle_ms: int, host_ms: int
) -> None:
    """Two answers of five steps, 10 ms each on the device and 3 ms on the host, an hour apart. The host's
    time is neither the device's nor the hour's."""
    clock = HostClock()
    hooks = FakeHooks(step_seconds=lambda step: 0.010)
    backend = FakeBackend(capabilities(depth=depth), hooks, clock=clock.read, sleep=clock.sleep)
    core = EngineCore(backend, POLICIES["interleave"], clock=lambda: round(clock.now * 1e9))
    for name in "ab":
        core.add(GenerationRequest(name, [4, 5, 6], SamplingParams(5)))
        while not core.idle:
            core.step()
            clock.sleep(0.003)
        clock.sleep(3600)
    assert core.stats().device_busy_us == pytest.approx(2 * 5 * 10_000, abs=20)
    assert core.stats().device_idle_us == pytest.approx(2 * idle_ms * 1000, abs=20)
    assert core.stats().host_busy_us == pytest.approx(2 * host_ms * 1000, abs=20)


def test_the_time_after_the_last_request_was_abandoned_is_not_idle_time() -> None:
    clock = HostClock()
    hooks = FakeHooks(step_seconds=lambda step: 0.010)
    backend = FakeBackend(capabilities(depth=1), hooks, clock=clock.read, sleep=clock.sleep)
    core = EngineCore(backend, POLICIES["interleave"])
    core.add(GenerationRequest("gone", [4, 5, 6], SamplingParams(5)))
    core.step()
    core.abort("gone")
    core.step()
    clock.sleep(3600)
    core.add(GenerationRequest("a", [4, 5, 6], SamplingParams(1)))
    core.step()
    assert core.stats().device_idle_us == 0


@pytest.mark.parametrize("depth", [1, 2])
def test_only_those_who_ask_are_told_log_probabilities(depth: int) -> None:
    """Beside others that do not, with guesses on, and however the answer ends."""
    caps = capabilities(depth=depth, logprobs=5)
    core = EngineCore(FakeBackend(caps), POLICIES["interleave"], drafter=NgramDrafter())
    requests = [
        GenerationRequest(str(index), [5, 6, 7, 5, 6], SamplingParams(9, seed=index, logprobs=most))
        for index, most in enumerate((None, 0, 3))
    ]
    client, told = Client(core), dict[str, list[int]]()
    for request in requests:
        client.add(request)
    while not core.idle:
        news = list(core.step())
        client.take(news)
        for delta in news:
            told.setdefault(delta.request_id, []).extend(len(each.likeliest) for each in delta.logprobs)
            assert len(delta.logprobs) == (len(delta.tokens) if delta.request_id != "0" else 0)
    for request in requests:
        assert client.tokens[request.request_id] == answer(request, caps)[0]
    assert told == {"0": [], "1": [0] * 9, "2": [3] * 9}


def test_a_backend_without_log_probabilities_refuses_who_asks_for_them() -> None:
    core = EngineCore(FakeBackend(capabilities()), POLICIES["interleave"])
    refused = core.add(GenerationRequest("a", [5], SamplingParams(9, logprobs=0)))
    assert refused is not None
    assert refused.finish is FinishReason.ERROR
