"""How much context a KV budget holds, and what is said when it is too little."""

from typing import Any

import pytest

from outcrop.backends.kv_memory import KVCapacity, kv_capacity
from outcrop_compile.config import LlamaConfig

# Llama 3.1 8B: a token's keys and values are 2 * 32 * 8 * 128 numbers, 128 KiB in bfloat16.
LLAMA_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_layers=32, num_heads=32,
    num_kv_heads=8, head_dim=128, context=131072, rms_norm_eps=1e-5, rope_theta=500000.0,
    rope_scaling=None, tie_embeddings=False,
)  # fmt: skip


def capacity(kv_memory: int, max_model_len: int | None = None, **changes: Any) -> KVCapacity:
    options: dict[str, Any] = {"itemsize": 2, "block_size": 32} | changes
    return kv_capacity(LLAMA_8B, kv_memory=kv_memory, max_model_len=max_model_len, **options)


def test_without_a_limit_the_context_is_what_memory_and_model_allow() -> None:
    assert capacity(1 << 30) == KVCapacity(num_blocks=256, max_model_len=8192)
    assert capacity(1 << 30, itemsize=4) == KVCapacity(num_blocks=128, max_model_len=4096)
    assert capacity(32 << 30) == KVCapacity(num_blocks=8192, max_model_len=131072)
    assert capacity(4 << 20) == KVCapacity(num_blocks=1, max_model_len=32)


def test_with_a_limit_it_must_fit_once() -> None:
    assert capacity(1 << 30, 8192) == KVCapacity(num_blocks=256, max_model_len=8192)
    assert capacity(1 << 30, 100) == KVCapacity(num_blocks=256, max_model_len=100)
    assert capacity(16 << 20, 100) == KVCapacity(num_blocks=4, max_model_len=100)


@pytest.mark.parametrize(
    ("kv_memory", "max_model_len", "complaint"),
    [
        ((4 << 20) - 1, None, "3 MiB holds 0 tokens, fewer than one block of 32: give at least 4 MiB"),
        (
            1 << 20,
            16,
            "1 MiB holds 0 tokens, fewer than max_model_len 16: give at least 4 MiB, or lower max_model_len",
        ),
        (
            12 << 20,
            100,
            "holds 96 tokens, fewer than max_model_len 100: give at least 16 MiB, or lower max_model_len",
        ),
    ],
)
def test_too_little_memory(kv_memory: int, max_model_len: int | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{complaint}$"):
        capacity(kv_memory, max_model_len)
    enough = int(complaint.split("at least ")[1].split()[0]) << 20
    assert capacity(enough, max_model_len).max_model_len == (max_model_len or 32)


def test_more_context_than_the_model_has() -> None:
    with pytest.raises(
        ValueError, match="max_model_len 131073 is beyond the model's context of 131072 tokens"
    ):
        capacity(64 << 30, 131073)
