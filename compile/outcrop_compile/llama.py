"""The one definition of the model: every backend runs this forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from outcrop_compile.config import LlamaConfig
from outcrop_compile.tensor_parallel import divide
from outcrop_kernels.quantised import SCALE, Quantised
from outcrop_kernels.reference import TOPK_CAP, log_probabilities, product
from outcrop_kernels.registry import Operations


@dataclass(frozen=True, slots=True)
class KVSizes:
    """num_blocks: without the sink, which is block number num_blocks. max_rows: rows of the token table,
    without its sink row."""

    num_blocks: int
    block_size: int
    max_rows: int


@dataclass(frozen=True, slots=True)
class TensorParallel:
    """One rank's place among `world` ranks, and the collectives between them.

    all_reduce: sums a tensor over the ranks. all_gather: concatenates the last dimension in rank order.
    """

    rank: int = 0
    world: int = 1
    all_reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor
    all_gather: Callable[[Tensor], Tensor] = lambda tensor: tensor


def rope_frequencies(config: LlamaConfig) -> Tensor:
    """Angle per position of each rotary pair, float32 [head_dim / 2]. Llama 3.1's scaling stretches the
    long wavelengths by `factor`, leaves the short ones, and blends in between (Meta's apply_scaling)."""
    pairs = torch.arange(0, config.head_dim, 2, dtype=torch.int64).to(torch.float32)
    inverse = 1.0 / (config.rope_theta ** (pairs / config.head_dim))
    scaling = config.rope_scaling
    if scaling is None:
        return inverse
    wavelength = 2 * math.pi / inverse
    original = scaling.original_max_position_embeddings
    blend = (original / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = (1 - blend) * inverse / scaling.factor + blend * inverse
    scaled = torch.where(wavelength > original / scaling.low_freq_factor, inverse / scaling.factor, inverse)
    between = (wavelength <= original / scaling.low_freq_factor) & (
        wavelength >= original / scaling.high_freq_factor
    )
    return torch.where(between, smooth, scaled)


def rotary_tables(config: LlamaConfig, positions: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, float32 [positions, head_dim / 2] each."""
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), rope_frequencies(config))
    return angles.cos(), angles.sin()


class PagedLlama(nn.Module):
    """Llama over a paged KV cache: one forward pass for prefill chunks, decode and verify steps.

    Static shapes, no Python branch on data, int32 indices, finite masks. The KV pools and the token
    table are buffers that `forward` reassigns: a compiler turns that into aliased device state, and the
    CPU's `kv_write` updates them in place.

    weights: the names and shapes of `outcrop_compile.weights.load_weights`, for this rank, in the layout that
    the operations read.
    max_positions: length of the rotary tables, so the longest sequence.
    """

    def __init__(
        self,
        config: LlamaConfig,
        weights: Mapping[str, Tensor | Quantised[Tensor]],
        kv: KVSizes,
        operations: Operations,
        *,
        max_positions: int,
        parallel: TensorParallel | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.operations = operations
        self.parallel = parallel or TensorParallel()
        layout = divide(config, self.parallel.world)
        self.heads, self.kv_heads = layout.heads, layout.kv_heads
        embed = weights["embed"]
        _keep(self, "embed", embed)
        self.layers = nn.ModuleList(
            _Layer(self, {key: weights[f"layers.{index}.{key}"] for key in _LAYER_WEIGHTS}, kv)
            for index in range(config.num_layers)
        )
        _keep(self, "norm", operations.pack(weights["norm"]))
        _keep(self, "head", operations.pack(weights.get("lm_head", embed)))
        for name, table in zip(("cos", "sin"), rotary_tables(config, max_positions), strict=True):
            self.register_buffer(name, table, persistent=False)
        self.register_buffer("last_token", torch.zeros(kv.max_rows + 1, dtype=torch.int32), persistent=False)

    embed: Tensor
    norm: Tensor
    head: Tensor
    head_scale: Tensor | None
    cos: Tensor
    sin: Tensor
    last_token: Tensor

    def forward(
        self,
        token_ids: Tensor,
        use_last: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        logits_idx: Tensor,
        sampled: Tensor,
        slots: Tensor,
        sampling: Tensor | None = None,
        draws: Tensor | None = None,
        allowed: Tensor | None = None,
        bias: Tensor | None = None,
        repetition: Tensor | None = None,
        *,
        likeliest: int | None = None,
    ) -> tuple[Tensor, ...]:
        """One step; arguments as in `outcrop.backends.base.StepInput`. Which of the last five are given
        is part of the graph's shape: without `sampling` and `draws` it takes the largest logit of every row,
        and where `draws` has a column for each token, it is a verify step.

        Returns tokens int32 [R], or [R, Q] in a verify step, and finite int32 [R]; the token table keeps a
        row's token where `sampled`. likeliest: where given, in a step that is no verify step, returns too, of
        the logits before any edit, the log probability of each row's token float32 [R], and the ids int32 and
        log probabilities float32 of the so many likeliest tokens [R, likeliest], falling.
        """
        ops, verify = self.operations, draws is not None and draws.dim() == 2
        # Whether the row is finite is a question about the model, so it comes before the request's edits.
        logits, tokens, finite = self.compute(
            token_ids, use_last, positions, slot_mapping, block_tables, logits_idx, slots, every=verify
        )
        edits = (allowed, bias, repetition)
        unedited = logits if likeliest is None else logits.clone()  # an edit may be in place
        if verify:
            assert sampling is not None
            assert draws is not None
            rows, width = token_ids.shape
            sampling, draws = sampling[:, None, :].expand(rows, width, 4).reshape(-1, 4), draws.reshape(-1)
            chosen = self._choose(logits, sampling, draws, edits).reshape(rows, width)
            kept = _after_accepted(chosen, tokens, logits_idx)
        else:
            chosen = kept = self._choose(logits, sampling, draws, edits)
        self.last_token = ops.keep_tokens(self.last_token, slots, sampled, kept)
        told = () if likeliest is None else self._log_probabilities(unedited, chosen, likeliest)
        return chosen, finite, *told

    def _log_probabilities(
        self, logits: Tensor, chosen: Tensor, likeliest: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward` returns them, from this rank's logits [R, V / world]."""
        whole = self.parallel.all_gather(logits)
        found = self.operations.candidates(whole, min(likeliest, whole.shape[-1]))
        return log_probabilities(whole, chosen, found)

    def _over_ranks(self, peak: Tensor) -> Tensor:
        """The largest of a row's peaks on all ranks [R]."""
        if self.parallel.world == 1:
            return peak
        return self.operations.peak(self.parallel.all_gather(peak[:, None]))

    def _choose(
        self,
        logits: Tensor,
        sampling: Tensor | None,
        draws: Tensor | None,
        edits: tuple[Tensor | None, Tensor | None, Tensor | None],
    ) -> Tensor:
        """A token for each row of this rank's logits [N, V / world]: int32 [N]. Ranks send each other their
        likeliest tokens, and all logits only where those are to be edited."""
        ops, ids = self.operations, None
        if any(edit is not None for edit in edits):
            logits = ops.edit_logits(self.parallel.all_gather(logits), *edits)
        elif self.parallel.world > 1:
            logits, ids = self._likeliest(logits, 1 if sampling is None else TOPK_CAP)
        if sampling is None or draws is None:
            place = ops.greedy(logits)
        else:
            place = ops.sample(logits, sampling, draws)
        if ids is None:
            return place
        places = torch.arange(ids.shape[-1], dtype=torch.int32, device=ids.device)
        at = places[None, :] == place[:, None]
        return torch.where(at, ids, torch.zeros_like(ids)).sum(dim=-1, dtype=torch.int32)

    def _likeliest(self, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` likeliest tokens of every rank, side by side: logits and ids, [N, count * world]. The
        ranks' first tokens are the graph's constants, which knows no rank of its own."""
        size = logits.shape[-1]
        count = min(count, size)
        if count == 1:
            values = logits.amax(dim=-1, keepdim=True)
            ids = self.operations.greedy(logits)[:, None]
        else:
            values, ids = self.operations.candidates(logits, count)
        ranks = torch.arange(self.parallel.world, dtype=torch.int32, device=ids.device)
        start = (ranks * size)[:, None].expand(self.parallel.world, count).reshape(1, -1)
        return self.parallel.all_gather(values), self.parallel.all_gather(ids) + start

    def compute(
        self,
        token_ids: Tensor,
        use_last: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        logits_idx: Tensor,
        slots: Tensor,
        *,
        every: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All of a step before its tokens are chosen, of registered operations and views alone, so that a
        target can record it. Arguments as in `forward`.

        Writes the tokens' KV. Returns this rank's logits float32 [N, V / world], where N is R, or R * Q where
        `every` token's are asked for; the tokens int32 [R, Q]; and whether each row's states and logits are
        numbers, int32 [R].
        """
        ops = self.operations
        rows = token_ids.shape[0]
        tokens = ops.step_tokens(token_ids, use_last, self.last_token, slots)
        hidden = self.hidden_states(tokens, positions, slot_mapping, block_tables)
        logits = self.logits(hidden if every else ops.pick(hidden, logits_idx))
        peak = self._over_ranks(ops.peak(logits.reshape(rows, -1)))
        return logits, tokens, ops.both_finite(ops.peak(hidden.reshape(rows, -1)), peak)

    def hidden_states(
        self, tokens: Tensor, positions: Tensor, slot_mapping: Tensor, block_tables: Tensor
    ) -> Tensor:
        """Run the layers over tokens [R, Q], writing their KV. Returns normed states [R * Q, H]."""
        ops, flat = self.operations, positions.reshape(-1)
        hidden = self.parallel.all_gather(ops.take(self.embed, tokens.reshape(-1)))
        if hidden.shape[-1] > self.config.hidden_size:
            hidden = hidden[:, : self.config.hidden_size]
        cos, sin = ops.take(self.cos, flat), ops.take(self.sin, flat)
        slots = slot_mapping.reshape(-1)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, slots, block_tables, positions)
        return ops.rms_norm(hidden, self.norm, self.config.rms_norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """This rank's logits float32 [N, V / world] of hidden states [N, H]."""
        return product(self.operations, hidden, self.head, self.head_scale).to(torch.float32)


def _after_accepted(chosen: Tensor, tokens: Tensor, guesses: Tensor) -> Tensor:
    """The token after each row's last right guess [R]: `outcrop.engine.speculation.accepted` in the form that
    lowers for the chip. chosen, tokens int32 [R, Q]; guesses int32 [R]: how many each row has."""
    width = chosen.shape[1]
    place = torch.arange(width, dtype=torch.int32, device=chosen.device)[None, :]
    wrong = (chosen[:, :-1] != tokens[:, 1:]) | (place[:, :-1] >= guesses[:, None])
    right = torch.where(wrong, place[:, :-1], torch.full_like(place[:, :-1], width - 1)).amin(dim=-1)
    return torch.where(place == right[:, None], chosen, torch.zeros_like(chosen)).sum(
        dim=-1, dtype=torch.int32
    )


_LAYER_WEIGHTS = ("attn_norm", "qkv", "o", "mlp_norm", "gate_up", "down")


def _keep(module: nn.Module, name: str, weight: Tensor | Quantised[Tensor]) -> None:
    """Register a packed weight; a matrix that stays quantised is two buffers, its codes and its scales, the
    second of which is None for all others."""
    scale = None
    if isinstance(weight, Quantised):
        scale = weight.scale
        weight = weight.codes
    module.register_buffer(name, weight, persistent=False)
    module.register_buffer(name + SCALE, scale, persistent=False)


class _Layer(nn.Module):
    """One transformer block and its two KV pools [num_blocks + 1, block_size, kv_heads, head_dim]."""

    def __init__(
        self, model: PagedLlama, weights: Mapping[str, Tensor | Quantised[Tensor]], kv: KVSizes
    ) -> None:
        super().__init__()
        config = model.config
        self.operations, self.parallel = model.operations, model.parallel
        self.heads, self.eps = model.heads, config.rms_norm_eps
        for name, weight in weights.items():
            _keep(self, name, model.operations.pack(weight))
        shape = (kv.num_blocks + 1, kv.block_size, model.kv_heads, config.head_dim)
        for name in ("key_pool", "value_pool"):
            pool = model.operations.kv_pool(*shape, model.embed.dtype)
            self.register_buffer(name, pool, persistent=False)

    attn_norm: Tensor
    qkv: Tensor
    qkv_scale: Tensor | None
    o: Tensor
    o_scale: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_scale: Tensor | None
    down: Tensor
    down_scale: Tensor | None
    key_pool: Tensor
    value_pool: Tensor

    def forward(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, block_tables: Tensor, positions: Tensor
    ) -> Tensor:
        ops = self.operations
        rows, width = positions.shape
        query, self.key_pool, self.value_pool = ops.cached_qkv(
            ops,
            hidden,
            self.attn_norm,
            self.qkv,
            self.qkv_scale,
            cos,
            sin,
            self.heads,
            self.eps,
            (self.key_pool, self.value_pool),
            slots,
        )
        mixed = ops.paged_attention(
            query.reshape(rows, width, *query.shape[1:]),
            self.key_pool,
            self.value_pool,
            block_tables,
            positions,
        )
        update = product(ops, mixed.reshape(rows * width, -1), self.o, self.o_scale)
        hidden, normed = ops.add_rms_norm(
            ops, hidden, self.parallel.all_reduce(update), self.mlp_norm, self.eps
        )
        update = ops.swiglu_mlp(ops, normed, self.gate_up, self.gate_up_scale, self.down, self.down_scale)
        return ops.add(hidden, self.parallel.all_reduce(update))
