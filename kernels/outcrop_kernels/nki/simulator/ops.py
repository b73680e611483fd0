"""The operators that instructions take: what each computes, and where it may be used.

As of the tables of nki.api.shared in the AWS Neuron docs (SDK 2.28; the later ones only add).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from outcrop_kernels.nki.simulator.rules import refuse

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """An operator such as nl.add: a name that instructions take, not a function of a kernel."""

    name: str
    binary: Callable[[Array, Array], Array] | None = None
    bits: bool = False
    """Works on integers' bits rather than on float32."""
    unary: Callable[[Array], Array] | None = None
    """On the vector engine, as an operator that ignores its operand."""
    reduction: Callable[..., Array] | None = None
    """numpy's reduction along axes, where tensor_reduce takes the operator."""
    activation: Callable[[Array], Array] | None = None
    """What the scalar engine evaluates."""
    valid: tuple[float, float] = (-math.inf, math.inf)
    """Where the scalar engine's polynomial holds."""

    def __call__(self, *operands: Any, **options: Any) -> NoReturn:
        refuse(
            "subset",
            f"nl.{self.name}(...) as a function came with SDK 2.29: give op=nl.{self.name} to an instruction",
        )

    def __repr__(self) -> str:
        return f"nl.{self.name}"


def _flag(compare: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda x, y: compare(x, y).astype(np.float32)


def _erf(x: Array) -> Array:
    return np.array([math.erf(value) for value in x.ravel().tolist()], dtype=np.float32).reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    return (np.float32(1) / (np.float32(1) + np.exp(-x))).astype(np.float32)


def _softplus(x: Array) -> Array:
    return np.logaddexp(np.float32(0), x).astype(np.float32)


def _gelu_tanh(x: Array) -> Array:
    inner: Array = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    half: Array = np.float32(0.5) * x
    return half * (np.float32(1) + np.tanh(inner))


def _rsqrt(x: Array) -> Array:
    return (np.float32(1) / np.sqrt(x)).astype(np.float32)


def reciprocal_of(x: Array) -> Array:
    return (np.float32(1) / x).astype(np.float32)


_TABLE = (
    Op("add", np.add, reduction=np.add.reduce),
    Op("subtract", np.subtract),
    Op("multiply", np.multiply, reduction=np.multiply.reduce),
    Op("maximum", np.maximum, reduction=np.maximum.reduce),
    Op("minimum", np.minimum, reduction=np.minimum.reduce),
    Op("power", np.power),
    Op("equal", _flag(np.equal)),
    Op("not_equal", _flag(np.not_equal)),
    Op("less", _flag(np.less)),
    Op("less_equal", _flag(np.less_equal)),
    Op("greater", _flag(np.greater)),
    Op("greater_equal", _flag(np.greater_equal)),
    Op("logical_and", _flag(np.logical_and)),
    Op("logical_or", _flag(np.logical_or)),
    Op("logical_xor", _flag(np.logical_xor)),
    Op("bitwise_and", np.bitwise_and, bits=True, reduction=np.bitwise_and.reduce),
    Op("bitwise_or", np.bitwise_or, bits=True, reduction=np.bitwise_or.reduce),
    Op("bitwise_xor", np.bitwise_xor, bits=True, reduction=np.bitwise_xor.reduce),
    Op("left_shift", np.left_shift, bits=True),
    Op("right_shift", np.right_shift, bits=True),
    Op("abs", unary=np.abs, activation=np.abs),
    Op("rsqrt", unary=_rsqrt, activation=_rsqrt, valid=(2.0**-87, 2.0**97)),
    Op("reciprocal", unary=reciprocal_of, activation=reciprocal_of, valid=(2.0**-42, 2.0**42)),
    Op("copy", activation=lambda x: x),
    Op("square", activation=np.square),
    Op("sigmoid", activation=_sigmoid),
    Op("relu", activation=lambda x: np.maximum(x, np.float32(0))),
    Op("gelu", activation=lambda x: np.float32(0.5) * x * (1 + _erf(x / np.float32(math.sqrt(2))))),
    Op("gelu_apprx_tanh", activation=_gelu_tanh),
    Op("silu", activation=lambda x: x * _sigmoid(x)),
    Op("tanh", activation=np.tanh),
    Op("softplus", activation=_softplus),
    Op("erf", activation=_erf),
    Op("exp", activation=np.exp),
    Op("log", activation=np.log, valid=(2.0**-64, 2.0**64)),
    Op("sin", activation=np.sin, valid=(-math.pi, math.pi)),
    Op("arctan", activation=np.arctan, valid=(-math.pi / 2, math.pi / 2)),
    Op("sqrt", activation=np.sqrt, valid=(2.0**-116, 2.0**118)),
    Op("sign", activation=np.sign),
)

OPS = {op.name: op for op in _TABLE}


def checked(op: Any, kind: str, instruction: str) -> Op:
    """`op` where the instruction takes it as `kind`: "binary", "unary", "reduction" or "activation"."""
    if not isinstance(op, Op):
        refuse("op", f"{instruction} is given {op!r}, not an operator of nl")
    if getattr(op, kind) is None:
        takes = ", ".join(name for name, known in OPS.items() if getattr(known, kind) is not None)
        refuse("op", f"{instruction} does not take {op} here; it takes {takes}")
    return op
