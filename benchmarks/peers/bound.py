"""The least time that a workload can take on a machine with given limits: no server can be faster without
doing less work."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.limits import Limits
from benchmarks.peers.peer import Precision
from benchmarks.peers.workloads import Workload

from outcrop_compile.checkpoint.names import canonical_shapes, kind_of
from outcrop_compile.config import LlamaConfig

_ITEM = {"bf16": 2, "int8": 1}
_KV_ITEM = 2


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds. prefill: of all prompts, whose last tokens give the first tokens of the answers; decode: of
    all steps after that, every call in each."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


def bound(workload: Workload, config: LlamaConfig, precision: Precision, limits: Limits) -> Bound:
    """Every weight is read once for all prompts and once a step, keys and values once a step; whichever
    takes longer, the bytes or the multiply-adds, is the bound of each part."""
    layers, head = _weights(config)
    calls = len(workload.prompts)
    # Two products of head_dim numbers for each head and pair of positions.
    pair = 2 * config.num_layers * config.num_heads * config.head_dim
    kv_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * _KV_ITEM
    weight_bytes = (layers + head) * _ITEM[precision]

    computed = sum(workload.prompts) - workload.shared * calls
    prompt_pairs = sum((n * n - workload.shared**2) / 2 for n in workload.prompts)
    prefill_work = computed * layers + calls * head + prompt_pairs * pair

    steps = workload.max_tokens - 1
    context = sum(workload.prompts) + calls * workload.max_tokens / 2  # on average over the steps
    step_bytes = weight_bytes + context * kv_bytes
    step_work = calls * (layers + head) + context * pair
    return Bound(
        prefill=max(weight_bytes / limits.bandwidth, prefill_work / limits.compute),
        decode=steps * max(step_bytes / limits.bandwidth, step_work / limits.compute),
    )


def _weights(config: LlamaConfig) -> tuple[int, int]:
    """How many multiply each token in the layers, and in the head."""
    matrices = (
        shape for name, shape in canonical_shapes(config) if kind_of(name) not in ("embed", "lm_head")
    )
    layers = sum(shape[0] * shape[1] for shape in matrices if len(shape) == 2)
    return layers, config.vocab_size * config.hidden_size
