"""What a rounding explains, and what it does not."""

import torch

from outcrop_compile.hlo.rounding import within_rounding
from outcrop_kernels import reference

ROWS, VOCAB, TOLERANCE = 96, 4096, 2**-6
SAMPLING = torch.tensor(
    [[0.0, 0.0, 1.0, 0.0], [0.8, 0.0, 0.95, 0.0], [1.5, 40.0, 1.0, 0.05], [0.5, 0.0, 0.3, 0.0]]
).repeat(ROWS // 4, 1)


def test_what_comes_of_logits_rounded_otherwise_is_within_a_rounding() -> None:
    differing = 0
    for seed in range(20):
        torch.manual_seed(seed)
        logits, draws = 2 * torch.randn(ROWS, VOCAB), torch.rand(ROWS)
        size = logits.abs().amax(dim=-1, keepdim=True)
        other = logits + (2 * torch.rand(ROWS, VOCAB) - 1) * TOLERANCE * size / 2
        tokens = reference.sample(other, SAMPLING, draws)
        assert within_rounding(logits, tokens, SAMPLING, draws, TOLERANCE).all()
        assert within_rounding(logits, reference.greedy(other), None, None, TOLERANCE).all()
        differing += int((tokens != reference.sample(logits, SAMPLING, draws)).sum())
    assert differing > ROWS


def test_other_tokens_are_not() -> None:
    torch.manual_seed(0)
    logits, draws = 2 * torch.randn(ROWS, VOCAB), torch.rand(ROWS)
    tokens = torch.randint(0, VOCAB, (ROWS,), dtype=torch.int32)
    assert within_rounding(logits, tokens, None, None, TOLERANCE).sum() <= 2
    assert within_rounding(logits, tokens, SAMPLING, draws, TOLERANCE).sum() <= 4


def test_likely_tokens_are_not_where_the_draw_is_far_from_them() -> None:
    logits = torch.tensor([[4.0, 3.9, 3.0, 2.0, 1.0]]).repeat(4, 1)
    draws = torch.tensor([0.02, 0.97, 0.02, 0.97])
    sampling = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).repeat(4, 1)
    tokens = torch.tensor([2, 0, 1, 3], dtype=torch.int32)
    assert within_rounding(logits, tokens, sampling, draws, TOLERANCE).tolist() == [False, False, True, True]


def test_what_is_forbidden_is_not_taken_for_a_large_logit() -> None:
    logits = torch.full((1, 300), reference.FORBIDDEN)
    logits[0, :3] = torch.tensor([2.0, 1.0, 1.99])
    for token, near in ((0, True), (1, False), (2, True), (7, False)):
        found = within_rounding(logits, torch.tensor([token], dtype=torch.int32), None, None, TOLERANCE)
        assert bool(found[0]) is near
