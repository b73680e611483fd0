"""Invariants 7 to 10 end to end: whole lives against the sequential reference."""

import random
from dataclasses import replace

import pytest
from reference import answer, capabilities

from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest, SamplingParams
from outcrop.engine.policy import POLICIES


class Client:
    """Collects what an engine delivers, and checks the order of it."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.tokens: dict[str, list[int]] = {}
        self.finish: dict[str, FinishReason] = {}
        self.cached: dict[str, int] = {}

    def add(self, request: GenerationRequest) -> None:
        self.tokens[request.request_id] = list(request.resumed)
        self.take(filter(None, [self.core.add(request)]))

    def run(self, steps: int = 50_000) -> None:
        for _ in range(steps):
            if self.core.idle:
                return
            self.take(self.core.step())
        raise AssertionError("the engine did not come to rest")

    def take(self, deltas: "list[GenerationDelta] | filter[GenerationDelta]") -> None:
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
            rng.randrange(1, 80), rng.choice([0.0, 0.9]), seed=rng.getrandbits(63), eos_ids=(0,)
        )
        requests.append(GenerationRequest(str(index), prompt, sampling, rng.choice([0, 0, 1])))
    return requests


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_answer_is_the_models_whatever_else_runs(depth: int, policy: str) -> None:
    preemptions = hits = 0
    for seed in range(12):
        rng = random.Random(seed)
        caps = capabilities(depth=depth)
        core = EngineCore(FakeBackend(caps), POLICIES[policy], prefix_cache=bool(seed % 3))
        client = Client(core)
        requests = random_requests(rng, 25)
        pending = list(requests)
        while pending or not core.idle:
            while pending and rng.random() < 0.3:
                client.add(pending.pop())
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


def answer_with(situation: str) -> list[int]:
    """The tokens of one request in one situation of an engine's life."""
    depth = 1 if situation == "depth 1" else 2
    caps = capabilities(
        depth=depth, num_blocks=30 if situation == "preempted" else 200, max_model_len=100, max_rows=4
    )
    core = EngineCore(FakeBackend(caps), POLICIES["interleave"])
    client = Client(core)
    request = GenerationRequest("it", PROMPT, SamplingParams(40, temperature=0.8, seed=11))
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
        core.scheduler.buckets.buckets = tuple(b for b in core.scheduler.buckets.buckets if b.width <= 8)
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
def test_a_request_gives_the_same_tokens_in_every_situation(situation: str) -> None:
    assert answer_with(situation) == answer_with("alone")


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
