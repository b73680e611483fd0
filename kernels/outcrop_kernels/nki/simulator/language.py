"""`nki.language` as the simulator has it: the names common to SDK 2.28 to 2.32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from outcrop_kernels.nki.simulator import memory
from outcrop_kernels.nki.simulator.dtypes import DType
from outcrop_kernels.nki.simulator.machine import current
from outcrop_kernels.nki.simulator.memory import MemoryRegion, Tensor, Window
from outcrop_kernels.nki.simulator.ops import OPS
from outcrop_kernels.nki.simulator.rules import refuse, refuse_name

bool_: DType = "bool"
int8: DType = "int8"
int16: DType = "int16"
int32: DType = "int32"
uint8: DType = "uint8"
uint16: DType = "uint16"
uint32: DType = "uint32"
float16: DType = "float16"
float32: DType = "float32"
bfloat16: DType = "bfloat16"
tfloat32: DType = "tfloat32"

sbuf = MemoryRegion.sbuf
psum = MemoryRegion.psum
hbm = MemoryRegion.private_hbm
private_hbm = MemoryRegion.private_hbm
shared_hbm = MemoryRegion.shared_hbm

add = OPS["add"]
subtract = OPS["subtract"]
multiply = OPS["multiply"]
maximum = OPS["maximum"]
minimum = OPS["minimum"]
power = OPS["power"]
equal = OPS["equal"]
not_equal = OPS["not_equal"]
less = OPS["less"]
less_equal = OPS["less_equal"]
greater = OPS["greater"]
greater_equal = OPS["greater_equal"]
logical_and = OPS["logical_and"]
logical_or = OPS["logical_or"]
logical_xor = OPS["logical_xor"]
bitwise_and = OPS["bitwise_and"]
bitwise_or = OPS["bitwise_or"]
bitwise_xor = OPS["bitwise_xor"]
left_shift = OPS["left_shift"]
right_shift = OPS["right_shift"]
abs = OPS["abs"]
rsqrt = OPS["rsqrt"]
reciprocal = OPS["reciprocal"]
copy = OPS["copy"]
square = OPS["square"]
sigmoid = OPS["sigmoid"]
relu = OPS["relu"]
gelu = OPS["gelu"]
gelu_apprx_tanh = OPS["gelu_apprx_tanh"]
silu = OPS["silu"]
tanh = OPS["tanh"]
softplus = OPS["softplus"]
erf = OPS["erf"]
exp = OPS["exp"]
log = OPS["log"]
sin = OPS["sin"]
arctan = OPS["arctan"]
sqrt = OPS["sqrt"]
sign = OPS["sign"]


class tile_size:  # noqa: N801 - NKI's name
    """NeuronCore-v2's sizes, under the names that SDK 2.28 has too."""

    pmax = memory.PARTITIONS
    psum_fmax = memory.PSUM_BANK_BYTES // 4
    gemm_stationary_fmax = 128
    gemm_moving_fmax = 512
    bn_stats_fmax = 512
    total_available_sbuf_size = memory.SBUF_BYTES


def ndarray(shape: Any, dtype: DType, buffer: Any = sbuf, name: str = "") -> Tensor:
    """Allocates a tensor that holds nothing yet."""
    if not isinstance(buffer, MemoryRegion):
        refuse("subset", f"the buffer is {buffer!r}: SDK 2.29 and later take nl.sbuf, nl.psum, nl.shared_hbm")
    return current().allocate(shape, dtype, buffer, name)


def zeros(shape: Any, dtype: DType, buffer: Any = sbuf, name: str = "") -> Tensor:
    """Allocates a tensor and fills it with zeros."""
    from outcrop_kernels.nki.simulator.isa import memset

    tensor = ndarray(shape, dtype, buffer, name)
    memset(tensor, 0)
    return tensor


def shared_identity_matrix(n: int, dtype: DType = uint8) -> Tensor:
    """The identity [n, n] in SBUF, which the compiler lays there as a constant."""
    from outcrop_kernels.nki.simulator.dtypes import from_float

    machine = current()
    tensor = machine.allocate((n, n), dtype, sbuf, "identity")
    memory.write(tensor, from_float(np.eye(n, dtype=np.float32), dtype), machine.tick())
    return tensor


def ds(start: int, size: int) -> Window:
    """The slice start : start + size."""
    return Window(start, size)


def affine_range(start: Any, stop: Any = None, step: Any = 1) -> Iterator[int]:
    """Iterations whose instructions have no order. The simulator runs them in several."""
    return current().iterations(_values(start, stop, step))


def sequential_range(start: Any, stop: Any = None, step: Any = 1) -> list[int]:
    """Iterations in order; one may read what an earlier one wrote."""
    return _values(start, stop, step)


def static_range(start: Any, stop: Any = None, step: Any = 1) -> list[int]:
    """Iterations in order."""
    return _values(start, stop, step)


def _values(start: Any, stop: Any, step: Any) -> list[int]:
    bounds = (0, start) if stop is None else (start, stop)
    for bound in (*bounds, step):
        if isinstance(bound, bool) or not isinstance(bound, int):
            refuse("static-bounds", f"a loop's bound is {bound!r}")
    first, end = bounds
    return list(range(first, end, step))


def program_id(axis: int = 0) -> int:
    """Of the launch grid, which has one program: NeuronCore-v2 has no LNC."""
    return 0


def num_programs(axes: int = 0) -> int:
    return 1


_LATER = {
    "load": "nisa.dma_copy into an nl.ndarray",
    "store": "nisa.dma_copy",
    "matmul": "nisa.nc_matmul",
    "transpose": "nisa.nc_transpose",
    "softmax": "nisa.tensor_reduce, nisa.activation and nisa.reciprocal",
    "rms_norm": "nisa.activation_reduce and nisa.activation",
    "sum": "nisa.tensor_reduce",
    "max": "nisa.tensor_reduce",
    "min": "nisa.tensor_reduce",
    "mean": "nisa.tensor_reduce",
    "where": "nisa.tensor_copy_predicated",
    "full": "nisa.memset",
    "ones": "nisa.memset",
    "dynamic_range": "a loop over range() with static bounds",
    "fori_loop": "a loop over range() with static bounds",
    "while_loop": "a loop over range() with static bounds",
    "divide": "nisa.reciprocal and nl.multiply",
    "mod": "bit operators or a host-made table",
    "arange": "slices and .ap",
    "mgrid": "slices and .ap",
}


if not TYPE_CHECKING:  # mypy is to know the names that there are.

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in {"dynamic_range", "fori_loop", "while_loop"}:
            refuse_name("static-bounds", f"nl.{name} makes a loop on the device: use {_LATER[name]}")
        if name in {"divide", "mod", "fmod"}:
            refuse_name(
                "op", f"nl.{name} does not exist in hardware: use {_LATER.get(name, 'other operators')}"
            )
        if name.startswith(("float8", "float4")):
            refuse_name("dtype", f"nl.{name} is not simulated")
        instead = f": use {_LATER[name]}" if name in _LATER else ""
        refuse_name("subset", f"nl.{name} is not in all of SDK 2.28 to 2.32{instead}")
