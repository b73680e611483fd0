"""The plan for a model on an instance: what is compiled, how much context fits, how fast it can be."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop_compile.bucket import Bucket
from outcrop_compile.instances import HBM_PER_CORE
from outcrop_compile.plan.buckets import neuron_buckets
from outcrop_compile.plan.host import BuildMemory, build_memory
from outcrop_compile.plan.memory import (
    GRAPH,
    RUNTIME,
    CoreMemory,
    activation_bytes,
    graph_count,
    kv_bytes_per_token,
    weight_bytes,
)
from outcrop_compile.plan.refusal import Limit, PlanRefused
from outcrop_compile.plan.request import PlanRequest
from outcrop_compile.plan.roofline import StepTime, padding_bytes, step_time, streamed_weights
from outcrop_compile.tensor_parallel import Layout, ShardingError, divide


@dataclass(frozen=True, slots=True)
class PlannedBucket:
    """context: tokens that every row may have. expected etc.: see StepTime."""

    bucket: Bucket
    context: int
    time: StepTime


@dataclass(frozen=True, slots=True)
class Plan:
    """tp: cores of one replica. replicas: how many the instance has room for. num_blocks: KV blocks of a
    replica, without the sink. graphs: compiled in all. padding: the share by which padding and copies of
    heads enlarge the weights that a step reads."""

    request: PlanRequest
    layout: Layout
    replicas: int
    num_blocks: int
    kv_bytes_per_token: int
    memory: CoreMemory
    buckets: tuple[PlannedBucket, ...]
    graphs: int
    build: BuildMemory
    padding: float

    @property
    def tp(self) -> int:
        return self.layout.world

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV a replica holds."""
        return self.num_blocks * self.request.block


def fit(request: PlanRequest, tp: int) -> Plan:
    """The plan with `tp` cores a replica. Raises PlanRefused, without suggestions."""
    config, length = request.config, request.length
    _check(request, tp)
    try:
        layout = divide(config, tp)
    except ShardingError as error:
        raise PlanRefused(Limit.DEGREE, str(error)) from None
    buckets = neuron_buckets(
        layout,
        max_rows=request.batch,
        max_model_len=length,
        block_size=request.block,
        guesses=request.guesses,
    )
    weights = weight_bytes(config, tp, request.dtype, length)
    activations = max(activation_bytes(layout, each, request.block, request.itemsize) for each in buckets)
    graphs = graph_count(buckets)
    reserve = (graphs * GRAPH, RUNTIME) if request.reserve is None else (0, request.reserve)
    room = HBM_PER_CORE - weights - activations - sum(reserve)
    per_token = kv_bytes_per_token(layout, request.itemsize)
    # The sink is a block more.
    num_blocks = room // (per_token * request.block) - 1
    where = f"{request.name} in {request.dtype} on {tp} of {request.instance.name}'s cores: "
    if room <= 0:
        parts = [f"{size / 2**30:.1f}" for size in (weights, activations, sum(reserve))]
        raise PlanRefused(
            Limit.MEMORY,
            f"{where}of a core's {HBM_PER_CORE >> 30} GiB, weights take {parts[0]}, activations {parts[1]}, "
            f"code and runtime {parts[2]}",
        )
    _check_blocks(request, num_blocks, where)
    kv = (num_blocks + 1) * per_token * request.block
    streamed = streamed_weights(config, request.dtype) / tp
    return Plan(
        request=request,
        layout=layout,
        replicas=request.instance.cores // tp,
        num_blocks=num_blocks,
        kv_bytes_per_token=per_token,
        memory=CoreMemory(weights, kv, activations, *reserve, free=room - kv),
        buckets=tuple(
            PlannedBucket(
                each, each.blocks * request.block, step_time(layout, each, request.block, request.dtype)
            )
            for each in buckets
        ),
        graphs=graphs,
        build=build_memory(layout, buckets, graphs, weights, request.instance),
        padding=padding_bytes(layout, request.dtype) / streamed,
    )


def _check(request: PlanRequest, tp: int) -> None:
    instance, config = request.instance, request.config
    if tp not in instance.degrees:
        degrees = ", ".join(map(str, instance.degrees))
        raise PlanRefused(
            Limit.DEGREE, f"{tp} cores cannot share a model on {instance.name}: its degrees are {degrees}"
        )
    if request.length > config.context:
        raise PlanRefused(
            Limit.CONTEXT,
            f"{request.name} was made for {config.context:,} tokens, not {request.length:,}",
        )


def _check_blocks(request: PlanRequest, num_blocks: int, where: str) -> None:
    """Whether the blocks hold one sequence, and a block for each request."""
    tokens = max(num_blocks, 0) * request.block
    if tokens < request.length:
        raise PlanRefused(
            Limit.LENGTH,
            f"{where}HBM has room for the KV of {tokens:,} tokens, fewer than the {request.length:,} of one "
            "sequence",
        )
    if num_blocks < request.batch:
        held = "slots, one a sequence" if request.slots else "KV blocks, one at least a sequence"
        raise PlanRefused(
            Limit.BATCH,
            f"{where}HBM has room for {num_blocks} {held}, fewer than the {request.batch} side by side",
        )
