"""The model with kernels in the place of operations is the model without them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from outcrop_compile.config import LlamaConfig
from outcrop_compile.llama import KVSizes, PagedLlama
from outcrop_compile.weights import is_multiplied, parameter_shapes
from outcrop_kernels.nki import operations as nki
from outcrop_kernels.nki.catalogue import KERNELS, chosen_kernels, weight_layout
from outcrop_kernels.nki.operations import Call
from outcrop_kernels.registry import Operations, operations
from outcrop_kernels.weight_layout import WeightLayout

CONFIG = LlamaConfig(
    vocab_size=512, hidden_size=256, intermediate_size=256, num_layers=2, num_heads=4, num_kv_heads=1,
    head_dim=64, context=512, rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=None, tie_embeddings=False,
)  # fmt: skip
SIZES = KVSizes(num_blocks=12, block_size=32, max_rows=3)
PROMPT = 160
"""More than kernels of a step's weights take: they are for few tokens."""


def model(ops: Operations, layout: WeightLayout) -> PagedLlama:
    dice, weights = torch.Generator().manual_seed(2), {}
    for name, shape in parameter_shapes(CONFIG, 1).items():
        weight = torch.randn(shape, generator=dice) * (shape[-1] ** -0.5 if len(shape) == 2 else 1)
        turned = layout == "inputs-first" and is_multiplied(name, shape)
        weights[name] = weight.T.contiguous() if turned else weight
    return PagedLlama(CONFIG, weights, SIZES, ops, max_positions=256)


def run(ops: Operations, layout: WeightLayout = "outputs-first") -> tuple[list[Tensor], PagedLlama]:
    """A prompt of 160 tokens, then two steps of three rows, one of them padded and one sampling."""
    one, found = model(ops, layout), []
    row = torch.arange(PROMPT, dtype=torch.int32)[None]
    zero, none = torch.zeros(1, dtype=torch.int32), torch.full((1,), 0, dtype=torch.int32)
    with torch.inference_mode():
        tokens, finite = one(
            token_ids=(row * 37) % 512, use_last=torch.zeros_like(row), positions=row, slot_mapping=row,
            block_tables=torch.arange(8, dtype=torch.int32)[None], logits_idx=none + PROMPT - 1,
            sampled=none + 1, slots=zero,
        )  # fmt: skip
        found += [tokens, finite]
        sink = SIZES.num_blocks * SIZES.block_size
        for step in range(2):
            positions = torch.tensor([[PROMPT + step], [step], [0]], dtype=torch.int32)
            column = torch.zeros(3, 1, dtype=torch.int32)
            sampling = torch.tensor([[0.0, 0, 1, 0], [0.9, 20, 0.9, 0], [0, 0, 1, 0]])
            tokens, finite = one(
                token_ids=torch.tensor([[0], [9], [0]], dtype=torch.int32),
                use_last=torch.tensor([[1], [step], [0]], dtype=torch.int32),
                positions=positions,
                slot_mapping=torch.tensor([[PROMPT + step], [9 * 32 + step], [sink]], dtype=torch.int32),
                block_tables=torch.tensor([list(range(8)), [9] * 8, [0] * 8], dtype=torch.int32),
                logits_idx=column[:, 0], sampled=torch.tensor([1, 1, 0], dtype=torch.int32),
                slots=torch.tensor([0, 1, 3], dtype=torch.int32), sampling=sampling,
                draws=torch.tensor([0.1, 0.7, 0.4]),
            )  # fmt: skip
            found += [tokens[:2], finite[:2]]
    return found, one


@pytest.fixture(scope="module")
def plain() -> tuple[list[Tensor], PagedLlama]:
    return run(operations("neuron"))


@pytest.mark.parametrize("gather", [True, False])
def test_tokens_and_states_are_the_same(plain: tuple[list[Tensor], PagedLlama], gather: bool) -> None:
    """In float32, with all kernels, and it calls all but the one of 8 bits."""
    expected, before = plain
    called = set()

    def recorded(call: Call) -> Any:
        called.add(call.entry.name)
        return nki.run(call)

    kernels = chosen_kernels("all")
    found, after = run(operations("neuron", kernels, gather=gather, caller=recorded), weight_layout(kernels))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for name, buffer in after.named_buffers():
        if name.endswith("_pool"):  # the sink aside
            torch.testing.assert_close(buffer[:-1], before.get_buffer(name)[:-1], rtol=0, atol=2e-5)
    assert called == {
        "kv_cache_write", "paged_decode_attention", "paged_prefill_attention", "rmsnorm", "add_rmsnorm",
        "rope", "fused_qkv", "swiglu_mlp", "topk", "largest",
    }  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_may_be_the_only_one(plain: tuple[list[Tensor], PagedLlama], kernel: str) -> None:
    expected, _ = plain
    found, _ = run(operations("neuron", [kernel], gather=True), weight_layout([kernel]))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_only_the_kernels_that_are_named_take_the_place_of_an_operation() -> None:
    plain = operations("neuron")
    some = operations("neuron", ["rope", "topk_sample"])
    changed = {name for name in ("rope", "candidates", "greedy", "sample") if getattr(some, name)}
    assert replace(some, **{name: getattr(plain, name) for name in changed}) == plain
    assert all(getattr(some, name) != getattr(plain, name) for name in changed)


def test_what_a_contract_refuses_is_computed_without_the_kernel() -> None:
    """Heads of 16 numbers; blocks of a whole sequence."""
    torch.manual_seed(4)
    plain, mine = operations("neuron"), operations("neuron", chosen_kernels("all"), gather=True)
    for heads, dim, size in ((2, 16, 32), (2, 64, 256)):
        query, pool = torch.randn(2, 1, heads, dim), torch.randn(3, size, 1, dim)
        tables = torch.zeros(2, 1, dtype=torch.int32)
        positions = torch.tensor([[1], [5]], dtype=torch.int32)
        arguments = (query, pool, pool, tables, positions)
        entry = KERNELS["paged_decode_attention"].entries[0]
        assert entry.contract.refusal(arguments) is not None
        assert torch.equal(mine.paged_attention(*arguments), plain.paged_attention(*arguments))
