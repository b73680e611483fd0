"""transformers-neuronx as this backend uses it: the only module that imports it. Not yet run on a device.

It runs with continuous batching, its optimised paged attention and chunked prefill: one call takes tokens of
several sequences end to end, prompts and answers alike. Names, arguments and what they mean:
src/transformers_neuronx/{config,base}.py and llama/model.py of aws-neuron/transformers-neuronx, 0.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sizes:
    """rows: sequences in one call. length: tokens of one, a multiple of block_size and longer than that.
    blocks: of the KV cache, at least those of all rows at full length; block 0 takes what padding writes.
    tokens: how many a call may have, each a graph."""

    rows: int
    length: int
    block_size: int
    blocks: int
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class InputMetadata:
    """What the model reads of the object that vLLM gave it. block_tables: int32 [S, NB]; context_lens: int32
    [S], tokens of each sequence in the cache before this call; seq_lens_tensor: int32 [S], and after it."""

    block_tables: Tensor
    context_lens: Tensor
    seq_lens_tensor: Tensor


class Model(Protocol):
    def logits(self, tokens: Tensor, positions: Tensor, slots: Tensor, metadata: InputMetadata) -> Tensor:
        """Float32 [>= S, V], row s after the last of the tokens of sequence s. tokens, positions, slots:
        int32 [T], sequence after sequence; slots: block * block_size + offset, where a token's KV goes."""


class LlamaModel:
    """A Llama, Code Llama or a checkpoint of that form, compiled as it is loaded.

    amp: f32, f16 or bf16. tp: NeuronCores that share it. Raises ValueError where the package is missing.
    """

    def __init__(self, path: str, sizes: Sizes, *, amp: str, tp: int) -> None:
        try:
            from transformers_neuronx import (
                ContinuousBatchingConfig,
                Layout,
                LlamaForSampling,
                NeuronConfig,
            )
        except ImportError as error:
            raise ValueError(
                f"transformers-neuronx cannot be imported ({error}); this backend is for environments that "
                "still have it (Neuron SDK 2.26 or older): on others use backend neuron or vllm"
            ) from error
        batching = ContinuousBatchingConfig(
            max_num_seqs=sizes.rows,
            max_model_len=sizes.length,
            optimized_paged_attention=True,
            enable_chunked_prefill=True,
        )
        batching.init_cache_engine(block_size=sizes.block_size, num_blocks=sizes.blocks)
        self._model: Any = LlamaForSampling.from_pretrained(
            path,
            n_positions=[sizes.length],
            batch_size=sizes.rows,
            amp=amp,
            tp_degree=tp,
            context_length_estimate=list(sizes.tokens),
            neuron_config=NeuronConfig(continuous_batching=batching, cache_layout=Layout.BSH),
        )
        self._model.to_neuron()

    def logits(self, tokens: Tensor, positions: Tensor, slots: Tensor, metadata: InputMetadata) -> Tensor:
        found: Tensor = self._model.forward(
            tokens[None], cache_ids=positions[None], start_ids=slots, input_metadata=metadata
        )
        return found.float()
