"""The model with kernels in the place of operations is the model without them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from outcrop_compile.config import LlamaConfig
from outcrop_compile.llama import KVSizes, PagedLlama
from outcrop_compile.weights import parameter_shapes
from outcrop_kernels.nki import operations as nki
from outcrop_kernels.nki.catalogue import KERNELS, chosen_kernels
from outcrop_kernels.nki.kernel import Entry
from outcrop_kernels.registry import Operations, operations

CONFIG = LlamaConfig(
    vocab_size=512, hidden_size=256, intermediate_size=256, num_layers=2, num_heads=4, num_kv_heads=1,
    head_dim=64, context=512, rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=None, tie_embeddings=False,
)  # fmt: skip
SIZES = KVSizes(num_blocks=12, block_size=32, max_rows=3)
PROMPT = 128


def model(ops: Operations) -> PagedLlama:
    dice = torch.Generator().manual_seed(2)
    weights = {
        name: torch.randn(shape, generator=dice) * (shape[-1] ** -0.5 if len(shape) == 2 else 1)
        for name, shape in parameter_shapes(CONFIG, 1).items()
    }
    return PagedLlama(CONFIG, weights, SIZES, ops, max_positions=256)


def run(ops: Operations) -> tuple[list[Tensor], PagedLlama]:
    """A prompt of 128 tokens, then two steps of three rows, one of them padded and one sampling."""
    one, found = model(ops), []
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
def test_tokens_and_states_are_the_same(
    plain: tuple[list[Tensor], PagedLlama], gather: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, with all kernels that the model can call, and it calls them."""
    expected, before = plain
    called, call = set(), nki.run

    def recorded(entry: Entry, arguments: tuple[Any, ...], *, gather: bool) -> Any:
        called.add(entry.name)
        return call(entry, arguments, gather=gather)

    monkeypatch.setattr(nki, "run", recorded)
    found, after = run(operations("neuron", chosen_kernels("all"), gather=gather))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for name, buffer in after.named_buffers():
        if name.endswith("_pool"):  # the sink aside
            torch.testing.assert_close(buffer[:-1], before.get_buffer(name)[:-1], rtol=0, atol=2e-5)
    assert called == {
        "kv_cache_write", "paged_decode_attention", "paged_prefill_attention", "rmsnorm", "rope", "topk",
        "largest",
    }  # fmt: skip


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
