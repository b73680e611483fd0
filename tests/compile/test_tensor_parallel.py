"""The division of a model among ranks: nothing is left out, nothing is computed twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcrop_compile.config import LlamaConfig
from outcrop_compile.tensor_parallel import ShardingError, divide

LLAMA_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_layers=32, num_heads=32,
    num_kv_heads=8, head_dim=128, context=8192, rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=None,
    tie_embeddings=False,
)  # fmt: skip


def numbers(part: slice) -> list[int]:
    return list(range(part.start, part.stop))


@given(
    group=st.integers(1, 9),
    kv_heads=st.sampled_from([1, 2, 3, 8]),
    factor=st.integers(1, 6),
    rows=st.integers(1, 5000),
)
def test_every_head_row_and_token_belongs_to_exactly_one_rank(
    group: int, kv_heads: int, factor: int, rows: int
) -> None:
    for world in {kv_heads * factor, kv_heads, 1}:
        config = replace(
            LLAMA_8B,
            num_heads=group * kv_heads,
            num_kv_heads=kv_heads,
            intermediate_size=rows,
            vocab_size=world * 11,
        )
        layout, ranks = divide(config, world), range(world)
        for part, size, length in (
            (layout.query_heads, layout.heads, config.num_heads),
            (layout.intermediate_rows, layout.intermediate_size, rows),
            (layout.embed_columns, layout.embed_size, config.hidden_size),
            (layout.vocabulary, layout.vocab_size, config.vocab_size),
        ):
            assert [number for rank in ranks for number in numbers(part(rank))] == list(range(length))
            assert all(len(numbers(part(rank))) <= size for rank in ranks)
        for rank in ranks:
            keys = numbers(layout.key_heads(rank))
            assert len(keys) == layout.kv_heads
            # The head that query number i of the rank attends with is number i // (heads / kv_heads) of it.
            for place, head in enumerate(numbers(layout.query_heads(rank))):
                assert keys[place // (layout.heads // layout.kv_heads)] == head // group
        assert layout.kv_heads * world == kv_heads * layout.copies


@pytest.mark.parametrize(
    ("world", "heads", "kv_heads", "rows"),
    [(1, 32, 8, 14336), (2, 16, 4, 7168), (4, 8, 2, 3584), (8, 4, 1, 1792), (16, 2, 1, 896), (24, 2, 1, 598),
     (32, 1, 1, 448)],
)  # fmt: skip
def test_llama_3_8b(world: int, heads: int, kv_heads: int, rows: int) -> None:
    layout = divide(LLAMA_8B, world)
    assert (layout.heads, layout.kv_heads, layout.intermediate_size) == (heads, kv_heads, rows)
    assert layout.vocab_size * world == 128256


def test_the_division_among_24_ranks_is_the_documented_one() -> None:
    layout = divide(LLAMA_8B, 24)
    assert [numbers(layout.query_heads(rank)) for rank in range(6)] == [
        [0, 1],
        [2, 3],
        [],
        [4, 5],
        [6, 7],
        [],
    ]
    assert [numbers(layout.key_heads(rank)) for rank in range(6)] == [[0], [0], [0], [1], [1], [1]]


@pytest.mark.parametrize("world", [0, 3, 12])
def test_key_value_heads_that_do_not_divide(world: int) -> None:
    with pytest.raises(ShardingError, match=f"among {world} ranks"):
        divide(LLAMA_8B, world)


def test_a_vocabulary_is_not_padded() -> None:
    with pytest.raises(ShardingError, match="vocab_size 128255 cannot be divided among 2 ranks"):
        divide(replace(LLAMA_8B, vocab_size=128255), 2)
