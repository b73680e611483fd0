"""Runs lowered graphs on XLA:CPU, and compares what comes out with the model in eager mode.

What is run is the very file that a compiler would get, but for neuronx-cc's top-k, for which XLA:CPU's stands
in. Weights, KV and steps are random: a graph is to compute what the model computes, whatever that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch_xla
from torch import Tensor
from torch_xla.core.xla_builder import computation_from_module_proto

from outcrop_compile.hlo.lower import set_buffer
from outcrop_compile.hlo.record import GraphRecord, Sizes
from outcrop_compile.hlo.rewrite import for_cpu
from outcrop_compile.llama import KVSizes, PagedLlama
from outcrop_compile.weights import parameter_shapes
from outcrop_kernels.neuron import TOPK
from outcrop_kernels.registry import operations

_TOLERANCE = {"float32": 1e-4, "bfloat16": 2**-6}
"""Of KV, relative to the largest magnitude: a few roundings of the type, in which XLA and torch need not be
alike."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """tokens: compared, of them `equal` alike. finite: whether both found the same rows to be numbers. error:
    the largest difference of a state, relative to its largest magnitude."""

    tokens: int
    equal: int
    finite: bool
    error: float
    tolerance: float

    @property
    def good(self) -> bool:
        return self.equal == self.tokens and self.finite and self.error <= self.tolerance


class Execution:
    """A model with random weights, whose graphs can be run. One rank alone: tp is 1."""

    def __init__(self, sizes: Sizes, seed: int = 0) -> None:
        self.sizes = sizes
        torch.manual_seed(seed)
        dtype = getattr(torch, sizes.dtype)
        weights = {
            name: _random_weight(shape, dtype)
            for name, shape in parameter_shapes(sizes.config, sizes.tp).items()
        }
        self.model = PagedLlama(
            sizes.config,
            weights,
            KVSizes(sizes.num_blocks, sizes.block_size, sizes.max_rows),
            operations("neuron"),
            max_positions=sizes.max_positions,
        )
        self.device = torch_xla.device()
        self._placed: dict[str, Tensor] = {}

    def compare(self, hlo: bytes, record: GraphRecord) -> Comparison:
        """Runs one step both ways."""
        inputs = random_step(record)
        states = {
            one.name: self._random_state(one.shape, one.dtype)
            for one in record.parameters
            if one.role == "state"
        }
        results = self._run(hlo, record, inputs | states)
        for name, state in states.items():
            set_buffer(self.model, name, state)
        with torch.no_grad():
            tokens, finite = self.model(**inputs)
        buffers = dict(self.model.named_buffers())
        error = max(_relative(results[name], buffers[name]) for name in states)
        return Comparison(
            tokens.numel(),
            int((results["tokens"] == tokens).sum()),
            torch.equal(results["finite"], finite),
            error,
            _TOLERANCE[self.sizes.dtype],
        )

    def _run(self, hlo: bytes, record: GraphRecord, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        computation = computation_from_module_proto(record.graph.tag, for_cpu(hlo, TOPK))
        arguments = [
            tensors[one.name].to(self.device) if one.name in tensors else self._weight(one.name)
            for one in record.parameters
        ]
        results = torch_xla._XLAC._xla_user_computation(
            f"outcrop::{record.graph.tag}", arguments, computation
        )
        return {one.name: result.cpu() for one, result in zip(record.outputs, results, strict=True)}

    def _weight(self, name: str) -> Tensor:
        """On XLA's device, where it stays."""
        if name not in self._placed:
            self._placed[name] = self.model.get_buffer(name).to(self.device)
        return self._placed[name]

    def _random_state(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        if dtype == "int32":
            return torch.randint(0, self.sizes.config.vocab_size, shape, dtype=torch.int32)
        return torch.randn(shape, dtype=getattr(torch, dtype))


def random_step(record: GraphRecord) -> dict[str, Tensor]:
    """A step that the engine might ask for: every row has a history, the last row is padding where there are
    several, and no two rows write to one slot."""
    bucket, sizes = record.bucket, record.sizes
    rows, width, size = bucket.rows, bucket.width, sizes.block_size
    span = bucket.blocks * size
    start = torch.randint(0, span - width + 1, (rows, 1))
    positions = start + torch.arange(width)[None, :]
    # Rows may read the same blocks, as of a shared prefix; of those they write, each has its own.
    table = torch.randint(0, sizes.num_blocks, (rows, bucket.blocks))
    own = torch.randperm(sizes.num_blocks)[: rows * bucket.blocks].tolist()
    for row in range(rows):
        for block in sorted(set((positions[row] // size).tolist())):
            table[row, block] = own.pop()
    slots = torch.gather(table, 1, positions // size) * size + positions % size
    sampled = torch.ones(rows)
    if rows > 1:
        positions[-1], slots[-1], table[-1], sampled[-1] = 0, sizes.num_blocks * size, sizes.num_blocks, 0
    vocab = sizes.config.vocab_size
    values = {
        "token_ids": torch.randint(0, vocab, (rows, width)),
        "use_last": torch.randint(0, 2, (rows, width)),
        "positions": positions,
        "slot_mapping": slots,
        "block_tables": table,
        "logits_idx": torch.randint(0, width, (rows,)),
        "sampled": sampled,
        "slots": torch.randperm(sizes.max_rows)[:rows],
        "sampling": torch.tensor(
            [[0.0, 0.0, 1.0, 0.0], [0.8, 0.0, 0.95, 0.0], [1.5, 40.0, 1.0, 0.05]]
        ).repeat(-(-rows // 3), 1)[:rows],
        "draws": torch.rand(rows, width) if bucket.kind == "verify" else torch.rand(rows),
        "allowed": torch.randint(-(2**31), 2**31, (rows, -(-vocab // 32))),
        "bias": torch.randn(rows, vocab),
        "repetition": torch.where(torch.rand(rows, vocab) < 0.01, 1.3, 1.0),
    }
    return {
        one.name: values[one.name].to(getattr(torch, one.dtype)).contiguous()
        for one in record.graph.inputs(vocab)
    }


def _random_weight(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Of a size that keeps activations near 1, so that logits are told apart by more than a rounding."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    # In place and piece by piece: a float32 copy of a whole matrix would be the largest thing in memory.
    return torch.empty(shape, dtype=dtype).normal_(std=2 * shape[-1] ** -0.5)


def _relative(got: Tensor, expected: Tensor) -> float:
    expected = expected.to(torch.float32)
    largest = float(expected.abs().max()) or 1.0
    return float((got.to(torch.float32) - expected).abs().max()) / largest
