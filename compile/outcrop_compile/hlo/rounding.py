"""Which tokens a rounding may choose.

Two machines that compute the same logits need not round them alike, and among 128,256 logits in bfloat16
there are always some about as large as the largest. A token that differs is a defect only if no such
rounding explains it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.reference import FORBIDDEN, TOPK_CAP


def within_rounding(
    logits: Tensor, tokens: Tensor, sampling: Tensor | None, draws: Tensor | None, tolerance: float
) -> Tensor:
    """Whether each of `tokens` int32 [N] would be the one for some logits that are as close to `logits`
    float32 [N, V] as `tolerance`, relative to a row's largest magnitude: bool [N].

    sampling [N, 4] and draws [N] as in `outcrop_kernels.reference.sample`; None for the largest logit. Errs
    towards yes for sampled tokens: where the cut of top_p and min_p falls moves with the rounding, and is
    taken at its widest.
    """
    values, _ = reference.candidates(logits, min(TOPK_CAP, logits.shape[-1]))
    # What is forbidden is as large as a number can be, and is not rounded.
    slack = tolerance * torch.where(values > FORBIDDEN, values.abs(), 0.0).amax(dim=-1)
    own = torch.gather(logits, 1, tokens.long()[:, None])
    greedy = own[:, 0] >= values[:, 0] - 2 * slack
    if sampling is None or draws is None:
        return greedy
    temperature, top_k, top_p, min_p = sampling.unbind(-1)
    heat = torch.clamp(temperature, min=1e-4)
    rank = torch.arange(values.shape[-1])[None, :]
    limit = torch.where(top_k > 0, top_k, float(values.shape[-1])).long()[:, None]
    odds = torch.exp((values - values[:, :1]) / heat[:, None]) * (rank < limit)
    probs = odds / odds.sum(dim=-1, keepdim=True)
    # How much a rounding changes one probability beside all others.
    growth = torch.exp(2 * slack / heat)

    def cut(scale: Tensor) -> Tensor:
        """What top_p and min_p keep, were the odds of all but the first so much larger."""
        nucleus = probs.cumsum(-1) - probs < top_p[:, None] * scale[:, None]
        return nucleus & (odds * scale[:, None] >= min_p[:, None])

    widest, narrowest = cut(growth), cut(1 / growth)
    last = torch.clamp(widest.sum(-1, keepdim=True) - 1, min=0)
    least = torch.gather(values, 1, last)[:, 0] - 2 * slack
    before = torch.where(values > own + 2 * slack[:, None], probs, 0.0).sum(-1)
    upto = torch.where(values >= own - 2 * slack[:, None], probs, 0.0).sum(-1)
    drawn = (
        (own[:, 0] >= least)
        & (before <= draws * torch.where(widest, probs, 0.0).sum(-1) * growth)
        & (upto * growth >= draws * torch.where(narrowest, probs, 0.0).sum(-1))
    )
    return torch.where(temperature > 0, drawn, greedy)
