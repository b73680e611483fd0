"""How long a step takes on an instance: known amounts of work, each at a fitted price.

The amounts follow from the model, its division among cores and the step's bucket; hardware figures and
rooflines are `outcrop_compile`'s. The prices are in `data/parameters.json`, fitted to published measurements
by `outcrop.simulate.calibration`. No step takes less than the HBM roofline. Not yet run on a device: replace
the parameters by a fit of your own measurements when you have some."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.instances import DMA_BANDWIDTH, PEAK_FLOPS, Instance, collective_floor
from outcrop_compile.plan.memory import kv_bytes_per_token
from outcrop_compile.plan.request import Dtype, plain_bytes
from outcrop_compile.plan.roofline import flops, padding_bytes, step_time, streamed_weights
from outcrop_compile.tensor_parallel import Layout

Work = dict[str, float]
"""An amount of each kind of work, by the name of its parameter."""


def work_of(layout: Layout, bucket: Bucket, block_size: int, dtype: Dtype, link_bandwidth: float) -> Work:
    """What a step asks of one core. link_bandwidth: bytes a second between chips, 0 for a single chip.

    Amounts whose price is a multiple of the ideal are in seconds at that ideal (`stream`, `kv`: bytes at the
    DMA engines' bandwidth; `compute`: operations at peak; `exchange`: bytes of a ring's all-reduces;
    `collectives`: the floor of an execution); those whose price is in seconds are counts.
    """
    config, world = layout.config, layout.world
    layers, span = config.num_layers, bucket.blocks * block_size
    item = plain_bytes(dtype)
    weights = streamed_weights(config, dtype) / world + padding_bytes(layout, dtype)
    work: Work = {
        "stream": weights / DMA_BANDWIDTH,
        "collectives": collective_floor(world),
        "layer": layers,
        "dequantise": weights if dtype == "int8" else 0.0,
    }
    if bucket.kind is StepKind.PREFILL:
        tokens = bucket.rows * bucket.width
        # Two all-reduces a layer, each of them twice its bytes around the ring.
        moved = 2 * layers * tokens * config.hidden_size * item * 2 * (world - 1) / world
        peak = PEAK_FLOPS / 4 if dtype == "float32" else PEAK_FLOPS
        work["compute"] = flops(layout, bucket, block_size) / peak
        work["exchange"] = moved / link_bandwidth if link_bandwidth else 0.0
    else:
        tokens = bucket.rows * bucket.width
        work["span"] = layers * span
        work["row"] = layers * tokens
        work["kv"] = bucket.rows * span * kv_bytes_per_token(layout, item) / DMA_BANDWIDTH
        work["scores"] = tokens * span * layers * layout.heads
    return work


@dataclass(frozen=True, slots=True)
class Host:
    """Seconds of the host. schedule: to plan and submit a step; apply: to book its result; exposed: that a
    device waits for a step which could not be submitted ahead; request: from a client's call to the engine
    and from the engine to the client, once a request."""

    schedule: float
    apply: float
    exposed: float
    request: float


@dataclass(frozen=True, slots=True)
class StepModel:
    """prices: of each kind of work in `work_of`."""

    prices: Mapping[str, float]
    host: Host

    def seconds(
        self, layout: Layout, bucket: Bucket, block_size: int, dtype: Dtype, instance: Instance
    ) -> float:
        """How long the device is busy with a step."""
        work = work_of(layout, bucket, block_size, dtype, instance.link_bandwidth)
        priced = sum(self.prices[name] * amount for name, amount in work.items())
        return max(priced, step_time(layout, bucket, block_size, dtype).hbm)


def step_model(path: Path | None = None) -> StepModel:
    """With the parameters as shipped, or those of a file like `data/parameters.json`. Raises ValueError."""
    data = parameters_data(path)
    try:
        host = Host(**{name: float(entry["seconds"]) for name, entry in data["host"].items()})
        return StepModel({name: float(entry["value"]) for name, entry in data["prices"].items()}, host)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of parameters ({type(error).__name__}: {error})") from None


def parameters_data(path: Path | None = None) -> dict[str, Any]:
    """The file of parameters, with what each means and where it is from. Raises ValueError."""
    source = path or files("outcrop.simulate") / "data" / "parameters.json"
    try:
        data: dict[str, Any] = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    return data
