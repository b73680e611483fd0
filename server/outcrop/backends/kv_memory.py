"""How much context a KV budget holds: known from the configuration of a checkpoint, without its weights."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop_compile.config import LlamaConfig


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """num_blocks: KV blocks that the budget holds. max_model_len: tokens that one sequence may have."""

    num_blocks: int
    max_model_len: int


def kv_capacity(
    config: LlamaConfig, *, itemsize: int, kv_memory: int, block_size: int, max_model_len: int | None
) -> KVCapacity:
    """Divide `kv_memory` bytes into blocks of `block_size` tokens, each number of `itemsize` bytes.

    max_model_len None is what the model and the memory allow. Raises ValueError, naming the setting, when
    the memory holds no sequence of max_model_len tokens or the model was not made for so many.
    """
    block_bytes = 2 * config.num_layers * block_size * config.num_kv_heads * config.head_dim * itemsize
    num_blocks = kv_memory // block_bytes
    wanted = block_size if max_model_len is None else max_model_len
    if wanted > config.context and max_model_len is not None:
        raise ValueError(f"max_model_len {wanted} is beyond the model's context of {config.context} tokens")
    if num_blocks * block_size < wanted:
        enough = -(-wanted // block_size) * block_bytes
        advice = "" if max_model_len is None else ", or lower max_model_len"
        raise ValueError(
            f"kv_memory {kv_memory >> 20} MiB holds {num_blocks * block_size} tokens, fewer than "
            f"{'one block of' if max_model_len is None else 'max_model_len'} {wanted}: "
            f"give at least {-(-enough // 2**20)} MiB{advice}"
        )
    return KVCapacity(num_blocks, min(max_model_len or config.context, num_blocks * block_size))
