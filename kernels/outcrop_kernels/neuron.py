"""Operations whose reference neuronx-cc refuses, or takes badly, in the graphs for NeuronCore-v2.

They run in eager mode too, with the same answers, which is how they are tested. Their custom call has not yet
run on a device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.quantised import Quantised

TOPK = "AwsNeuronTopK"
"""neuronx-cc's own top-k: float32 [R, N] -> (float32 [R, k], uint32 [R, k]), k as text in backend_config
(https://github.com/aws-neuron/nkipy emits it like this). torch.topk lowers to a sort, which the compiler
refuses (EVRF001)."""

_WIDEST = 16384
"""Elements of a row that the vector engine's max8 takes (nki.isa.max8); a wider top-k is made of two."""


def pack(weight: Tensor | Quantised[Tensor]) -> Tensor | Quantised[Tensor]:
    """Matrices of 8 bits stay as they are."""
    return weight


def candidates(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of a row too wide for the instruction, the largest of each piece and then the largest of those: no one
    of the `count` largest has as many above it in its own piece."""
    rows, width = logits.shape
    pieces = _pieces(width, count)
    if pieces == 1:
        return _top(logits, count)
    values, ids = _top(logits.reshape(rows * pieces, width // pieces), count)
    start = torch.arange(pieces, dtype=torch.int32, device=ids.device) * (width // pieces)
    ids = ids.reshape(rows, pieces, count) + start[None, :, None]
    best, places = _top(values.reshape(rows, pieces * count), count)
    # A matrix of ids by place: an element gather would be pieces of four bytes each.
    place = torch.arange(pieces * count, dtype=torch.int32, device=ids.device)
    at = places[:, :, None] == place[None, None, :]
    ids = ids.reshape(rows, 1, pieces * count)
    return best, torch.where(at, ids, torch.zeros_like(ids)).sum(dim=-1, dtype=torch.int32)


def greedy(logits: Tensor) -> Tensor:
    """By two plain reductions: argmax is one over pairs, which the compiler has no instruction for. An id of
    the vocabulary even where a row holds NaN, since the next step looks it up."""
    width = logits.shape[-1]
    place = torch.arange(width, dtype=torch.int32, device=logits.device)[None, :]
    largest = logits.amax(dim=-1, keepdim=True)
    return torch.where(logits == largest, place, torch.full_like(place, width - 1)).amin(dim=-1)


def sample(logits: Tensor, sampling: Tensor, draws: Tensor) -> Tensor:
    likeliest = candidates(logits, min(reference.TOPK_CAP, logits.shape[-1]))
    return reference.chosen(*likeliest, greedy(logits), sampling, draws)


def _pieces(width: int, count: int) -> int:
    """The fewest equal pieces of a row that the instruction takes; 1 where none of them holds `count`."""
    for pieces in range(-(-width // _WIDEST), width // count + 1):
        if width % pieces == 0:
            return pieces
    return 1


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if values.device.type != "xla":
        return reference.candidates(values, count)
    from torch_xla.experimental.stablehlo_custom_call import stablehlo_custom_call

    shape = (values.shape[0], count)
    top, ids = stablehlo_custom_call(
        (values,), TOPK, (shape, shape), (torch.float32, torch.uint32), backend_config=str(count)
    )
    return top, ids.to(torch.int32)


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "pack": pack,
    "candidates": candidates,
    "greedy": greedy,
    "sample": sample,
}
