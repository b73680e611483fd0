"""Guesses: what is guessed, what counts as right, and that answers stay what they are."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import OftenRight, answer, capabilities

from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams
from outcrop.engine.policy import POLICIES
from outcrop.engine.speculation import Drafter, NgramDrafter, accepted


def naive_proposal(tokens: list[int], count: int, longest: int, shortest: int) -> list[int]:
    for length in range(longest, shortest - 1, -1):
        suffix = tokens[-length:]
        for end in range(len(tokens) - 1, length - 1, -1):
            if len(suffix) == length and tokens[end - length : end] == suffix:
                return tokens[end : end + count]
    return []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 3))
def test_what_followed_the_longest_repeated_suffix_is_guessed(
    tokens: list[int], count: int, shortest: int
) -> None:
    drafter = NgramDrafter(longest=4, shortest=shortest)
    got = drafter.propose(np.array(tokens, dtype=np.int32), count)
    assert got.tolist() == naive_proposal(tokens, count, 4, shortest)


def test_tokens_that_never_came_before_are_not_guessed() -> None:
    assert not len(NgramDrafter().propose(np.arange(50, dtype=np.int32), 4))


@given(st.data())
def test_guesses_count_up_to_the_first_wrong_one(data: st.DataObject) -> None:
    rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 5))
    numbers = st.integers(0, 2)
    chosen = [[data.draw(numbers) for _ in range(width)] for _ in range(rows)]
    drafts = [[data.draw(numbers) for _ in range(width - 1)] for _ in range(rows)]
    counts = [data.draw(st.integers(0, width - 1)) for _ in range(rows)]
    wanted = []
    for row in range(rows):
        right = 0
        while right < counts[row] and chosen[row][right] == drafts[row][right]:
            right += 1
        wanted.append(right)
    got = accepted(np.array(chosen), np.array(drafts), np.array(counts))
    assert got.tolist() == wanted


def run(requests: list[GenerationRequest], drafter: Drafter | None, **sizes: int) -> tuple[EngineCore, dict]:
    core = EngineCore(FakeBackend(capabilities(**sizes)), POLICIES["interleave"], drafter=drafter)
    answers: dict[str, tuple[list[int], FinishReason | None]] = {r.request_id: ([], None) for r in requests}
    for request in requests:
        core.add(request)
    while not core.idle:
        for delta in core.step():
            tokens, finish = answers[delta.request_id]
            assert finish is None
            answers[delta.request_id] = (tokens + delta.tokens, delta.finish)
    return core, answers


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_answers_are_the_models_however_often_a_guess_is_right(share: float) -> None:
    rng = random.Random(4)
    requests = [
        GenerationRequest(
            str(index),
            [rng.randrange(1, 50) for _ in range(rng.randrange(1, 40))],
            SamplingParams(
                rng.randrange(1, 60), rng.choice([0.0, 0.9]), seed=index, eos_ids=(0, 7), logit_bias=bias
            ),
        )
        for index, bias in enumerate([{}] * 12 + [{3: 0.5}] * 3)
    ]
    core, answers = run(requests, OftenRight(share), num_blocks=60)
    for request in requests:
        assert answers[request.request_id] == answer(request, core.backend.capabilities)
    stats = core.stats()
    assert 10 * share <= stats.accepted_tokens <= stats.drafted_tokens
    assert core.scheduler.pool.num_free == 60


def test_right_guesses_save_steps() -> None:
    asked = [GenerationRequest("a", [1, 2, 3], SamplingParams(48))]
    with_guesses, answers = run(asked, OftenRight(1.0))
    without, same = run(asked, None)
    assert answers == same
    assert without.stats().decode_steps == 47  # the prompt's step samples one
    assert with_guesses.stats().decode_steps < 30


def test_a_request_with_a_grammar_or_a_penalty_keeps_a_step_from_guessing() -> None:
    asked = [
        GenerationRequest("a", [1, 2, 3], SamplingParams(20)),
        GenerationRequest("b", [4, 5, 6], SamplingParams(20, repetition_penalty=1.25)),
    ]
    core, answers = run(asked, OftenRight(1.0))
    for request in asked:
        assert answers[request.request_id] == answer(request, core.backend.capabilities)


def test_values_that_are_not_numbers_end_the_row_alone() -> None:
    core = EngineCore(
        FakeBackend(capabilities(), FakeHooks(nan=49)), POLICIES["interleave"], drafter=OftenRight(1.0)
    )
    core.add(GenerationRequest("bad", [1, 49], SamplingParams(9)))
    core.add(GenerationRequest("good", [1, 2], SamplingParams(9)))
    finish = {}
    while not core.idle:
        finish |= {delta.request_id: delta.finish for delta in core.step() if delta.finish}
    assert finish["bad"] is FinishReason.ERROR
    assert finish["good"] in (FinishReason.LENGTH, FinishReason.ERROR)
