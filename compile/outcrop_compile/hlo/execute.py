"""Runs lowered graphs on XLA:CPU, and compares what comes out with the model in eager mode.

What is run is the very file that a compiler would get, but for what `rewrite.for_cpu` changes. Weights, KV
and steps are random: a graph is to compute what the model computes, whatever that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
import torch_xla
from torch import Tensor
from torch_xla.core.xla_builder import computation_from_module_proto

from outcrop_compile.hlo.comparison import Comparison
from outcrop_compile.hlo.lower import set_buffer
from outcrop_compile.hlo.parameters import model_weights
from outcrop_compile.hlo.record import GraphRecord, Sizes
from outcrop_compile.hlo.rewrite import for_cpu
from outcrop_compile.hlo.rounding import within_rounding
from outcrop_compile.llama import KVSizes, PagedLlama
from outcrop_compile.meeting import Meeting
from outcrop_compile.plan.request import plain_type
from outcrop_kernels.neuron import TOPK
from outcrop_kernels.quantised import SCALE, Quantised
from outcrop_kernels.reference import edit_logits
from outcrop_kernels.registry import operations

_PATIENCE = 600
"""Seconds that a rank waits for the others, which may yet be compiling."""
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2**-6}
"""Of KV and logits, relative to the largest magnitude: a few roundings of the type, in which XLA and torch
need not be alike."""


class _Watched(PagedLlama):
    """A model that remembers its logits."""

    seen: Tensor

    def logits(self, hidden: Tensor) -> Tensor:
        self.seen = super().logits(hidden)
        return self.seen


class Execution:
    """A model with random weights, whose graphs can be run: each rank in a thread, on its own CPU device."""

    def __init__(self, sizes: Sizes, seed: int = 0) -> None:
        self.sizes = sizes
        torch.manual_seed(seed)
        meeting = Meeting(sizes.tp, _PATIENCE)
        common: dict[str, Tensor] = {}
        self.models = [
            _Watched(
                sizes.config,
                _random_weights(sizes, common),
                KVSizes(sizes.num_blocks, sizes.block_size, sizes.max_rows),
                operations("neuron"),
                max_positions=sizes.max_positions,
                parallel=meeting.parallel(rank) if sizes.tp > 1 else None,
            )
            for rank in range(sizes.tp)
        ]
        self._placed: list[dict[str, Tensor]] = [{} for _ in self.models]

    def compare(self, hlo: bytes, record: GraphRecord) -> Comparison:
        """Runs one step both ways, on all ranks."""
        inputs, cpu = random_step(record), for_cpu(hlo, TOPK)
        table = torch.randint(0, self.sizes.config.vocab_size, (self.sizes.max_rows + 1,), dtype=torch.int32)
        states = [self._random_states(record, table) for _ in self.models]

        def rank(place: int) -> tuple[Tensor, Tensor, bool, float]:
            """Tokens of both, whether they found the same rows to be numbers, and how far KV differs."""
            results = self._run(cpu, record, place, inputs | states[place])
            model = self.models[place]
            for name, state in states[place].items():
                set_buffer(model, name, state)
            with torch.no_grad():
                tokens, finite = model(**inputs)
            buffers = dict(model.named_buffers())
            error = max(
                _relative(results[name], buffers[name])
                for name, state in states[place].items()
                # The token table holds what the tokens say.
                if state.is_floating_point()
            )
            return results["tokens"], tokens, torch.equal(results["finite"], finite), error

        with ThreadPoolExecutor(self.sizes.tp) as pool:
            found = list(pool.map(rank, range(self.sizes.tp)))
        tolerance = _TOLERANCE[plain_type(self.sizes.dtype)]
        # Every rank has all tokens; the one that has most of them wrong counts.
        got, expected = min(
            ((got.reshape(-1), tokens.reshape(-1)) for got, tokens, _, _ in found),
            key=lambda pair: int((pair[0] == pair[1]).sum()),
        )
        near = (got != expected) & self._near(got, inputs, tolerance)
        return Comparison(
            tokens=got.numel(),
            equal=int((got == expected).sum()),
            near=int(near.sum()),
            finite=all(finite for _, _, finite, _ in found),
            error=max(error for _, _, _, error in found),
            tolerance=tolerance,
        )

    def _near(self, tokens: Tensor, inputs: Mapping[str, Tensor], tolerance: float) -> Tensor:
        """Which tokens the model's logits of the last step have within a rounding."""
        logits = torch.cat([model.seen for model in self.models], dim=-1)
        logits = edit_logits(logits, *(inputs.get(name) for name in ("allowed", "bias", "repetition")))
        sampling, draws = inputs.get("sampling"), inputs.get("draws")
        if sampling is not None and draws is not None and draws.dim() == 2:
            sampling = sampling.repeat_interleave(draws.shape[1], dim=0)
            draws = draws.reshape(-1)
        return within_rounding(logits, tokens, sampling, draws, tolerance)

    def _run(
        self, hlo: bytes, record: GraphRecord, rank: int, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        device = torch.device("xla", rank)
        placed = self._placed[rank]
        for one in record.parameters:
            # Weights stay on XLA's device.
            if one.role == "weight" and one.name not in placed:
                placed[one.name] = self.models[rank].get_buffer(one.name).to(device)
        arguments = [
            placed[one.name] if one.role == "weight" else tensors[one.name].to(device)
            for one in record.parameters
        ]
        name = record.graph.tag
        results = torch_xla._XLAC._xla_user_computation(
            f"outcrop::{name}", arguments, computation_from_module_proto(name, hlo)
        )
        return {one.name: result.cpu() for one, result in zip(record.outputs, results, strict=True)}

    def _random_states(self, record: GraphRecord, table: Tensor) -> dict[str, Tensor]:
        return {
            one.name: table.clone()
            if one.dtype == "int32"
            else torch.randn(one.shape, dtype=getattr(torch, one.dtype))
            for one in record.parameters
            if one.role == "state"
        }


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


def _random_weights(sizes: Sizes, common: dict[str, Tensor]) -> dict[str, Tensor | Quantised[Tensor]]:
    """Of one rank. common: what all ranks have alike, which the first of them fills in."""

    def make(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if len(shape) == 1 or name == "embed":
            return common.setdefault(name, _random_weight(shape, dtype))
        if name.endswith(SCALE):
            return torch.full(shape, 2 * sizes.config.hidden_size**-0.5 / 128)
        return _random_weight(shape, dtype)

    return model_weights(sizes, make)


def _random_weight(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Of a size that keeps activations near 1, so that logits are told apart by more than a rounding."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    if dtype == torch.int8:
        return torch.randint(-127, 128, shape, dtype=dtype)
    # In place and piece by piece: a float32 copy of a whole matrix would be the largest thing in memory.
    return torch.empty(shape, dtype=dtype).normal_(std=2 * shape[-1] ** -0.5)


def _relative(got: Tensor, expected: Tensor) -> float:
    expected = expected.to(torch.float32)
    largest = float(expected.abs().max()) or 1.0
    return float((got.to(torch.float32) - expected).abs().max()) / largest
