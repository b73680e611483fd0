"""A stand-in for transformers-neuronx: what Outcrop uses of it, on the CPU, with transformers for the model.

Its KV cache holds token ids: a sequence is read back from the blocks that its table names, so what was put
into the wrong slot, or overwritten by padding, gives another answer.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM


class Layout(enum.Enum):
    HSB = "HSB"
    BSH = "BSH"
    SBH = "SBH"


class ContinuousBatchingConfig:
    def __init__(
        self,
        *,
        max_num_seqs: int,
        max_model_len: int,
        optimized_paged_attention: bool,
        enable_chunked_prefill: bool,
    ) -> None:
        assert optimized_paged_attention
        assert enable_chunked_prefill
        self.max_num_seqs, self.max_model_len = max_num_seqs, max_model_len

    def init_cache_engine(self, block_size: int, num_blocks: int) -> None:
        assert block_size < self.max_model_len
        self.block_size, self.num_blocks = block_size, num_blocks


class NeuronConfig:
    def __init__(self, *, continuous_batching: ContinuousBatchingConfig, cache_layout: Layout) -> None:
        assert cache_layout is Layout.BSH
        self.continuous_batching = continuous_batching


class LlamaForSampling:
    fault: RuntimeError | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_path: str, **given: Any) -> LlamaForSampling:
        made = cls(**given)
        made._path = Path(pretrained_model_path)
        return made

    def __init__(
        self,
        *,
        n_positions: list[int],
        batch_size: int,
        amp: str,
        tp_degree: int,
        context_length_estimate: list[int],
        neuron_config: NeuronConfig,
    ) -> None:
        self.config = neuron_config.continuous_batching
        assert amp in ("f32", "f16", "bf16")
        assert tp_degree >= 1
        assert batch_size == self.config.max_num_seqs
        assert max(n_positions) >= max(context_length_estimate)
        assert max(n_positions) * batch_size // self.config.block_size <= self.config.num_blocks
        self.buckets = sorted(context_length_estimate)
        self.cache = torch.full((self.config.num_blocks * self.config.block_size,), -1)
        self._path = Path()
        self._model: Any = None

    def to_neuron(self) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(self._path, dtype=torch.float32).eval()

    def forward(self, input_ids: Tensor, cache_ids: Tensor, start_ids: Tensor, input_metadata: Any) -> Tensor:
        """[max_num_seqs, V], as base.py prepares its inputs where enable_chunked_prefill."""
        if self.fault is not None:
            raise self.fault
        config = self.config
        (_, count), size = input_ids.shape, config.block_size
        before, after = input_metadata.context_lens, input_metadata.seq_lens_tensor
        queries = (after - before).tolist()
        assert cache_ids.shape == input_ids.shape == (1, len(start_ids))
        assert sum(queries) == count <= self.buckets[-1]
        assert len(queries) <= config.max_num_seqs
        assert input_metadata.block_tables.shape[1] <= config.max_model_len // size
        bucket = next(each for each in self.buckets if each >= count)
        slots = torch.nn.functional.pad(start_ids, (0, bucket - count))
        self.cache[slots.long()] = torch.nn.functional.pad(input_ids[0], (0, bucket - count), value=7).long()
        positions = [torch.arange(int(start), int(end)) for start, end in zip(before, after, strict=True)]
        assert torch.equal(cache_ids[0], torch.cat(positions).int())
        sequences = []
        for table, end in zip(input_metadata.block_tables, after, strict=True):
            places = torch.arange(int(end))
            sequences.append(self.cache[table.long()[places // size] * size + places % size])
        padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).clamp(min=0)
        hidden = self._model.model(padded).last_hidden_state
        logits = self._model.lm_head(hidden[torch.arange(len(sequences)), after.long() - 1])
        found = torch.zeros(config.max_num_seqs, logits.shape[-1])
        found[: len(sequences)] = logits
        return found
