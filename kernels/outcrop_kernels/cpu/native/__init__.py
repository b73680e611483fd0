"""Native kernels of the CPU backend: the C++ library of this folder, and its functions as operations.

Built with the package where there is a C++ compiler; `load` says what is missing otherwise. One team of
threads serves the whole process, and calls must come from one thread at a time. Activations are float32;
weights and KV are float32 or bfloat16, in which a weight takes half the time to read.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from outcrop_kernels import reference

PANEL = 16
"""Output features that a panel of packed weights holds, as kPanel in kernels.h."""

_FORMATS = {torch.float32: 0, torch.bfloat16: 1}
_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "pack": (_POINTER, _POINTER, _LONG, _LONG, _INT),
    "linear": (_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _INT),
    "attention": (*(_POINTER,) * 6, *(_LONG,) * 7, _INT),
    "kv_write": (_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _INT),
    "rms_norm": (_POINTER, _POINTER, _POINTER, _LONG, _LONG, _FLOAT),
    "rope": (_POINTER, _POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG),
    "swiglu": (_POINTER, _POINTER, _LONG, _LONG),
    "argmax": (_POINTER, _POINTER, _POINTER, _LONG, _LONG),
}


class NativeUnavailable(RuntimeError):
    """There is no native library, or it has no kernels of the kind asked for; the message says why."""


def start(threads: int, isa: str = "auto") -> str:
    """Start the team with the kernels for an instruction set ("auto": the best that this processor has);
    returns which. May be called again. Raises NativeUnavailable."""
    library = _library()
    if not library.outcrop_start(isa.encode(), threads):
        raise NativeUnavailable(f"this processor does not have the {isa} instructions")
    name: bytes = library.outcrop_isa()
    return name.decode()


@cache
def _library() -> ctypes.CDLL:
    folder = Path(__file__).parent
    found = [folder / f"_library{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((candidate for candidate in found if candidate.is_file()), None)
    if path is None:
        raise NativeUnavailable(
            f"{folder}: the native kernels were not built; install a C++ compiler (g++ 11 or later) and then "
            "the package again"
        )
    library = ctypes.CDLL(str(path))
    library.outcrop_isa.restype = ctypes.c_char_p
    library.outcrop_start.argtypes = (ctypes.c_char_p, _INT)
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, f"outcrop_{name}")
        function.argtypes, function.restype = arguments, None
    return library


def pack(weight: Tensor) -> Tensor:
    """A weight [out, in] as `linear` reads it: panels [out / 16, in, 16], or [out / 16, in / 2, 16, 2] in
    bfloat16. One that does not divide into panels stays as it is, in float32."""
    features, depth = weight.shape
    if features % PANEL or depth % 2:
        return weight.to(torch.float32)
    shape = (depth, PANEL) if weight.dtype is torch.float32 else (depth // 2, PANEL, 2)
    packed = torch.empty(features // PANEL, *shape, dtype=weight.dtype)
    _library().outcrop_pack(
        weight.contiguous().data_ptr(), packed.data_ptr(), features, depth, _FORMATS[weight.dtype]
    )
    return packed


def linear(x: Tensor, weight: Tensor) -> Tensor:
    if weight.dim() == 2:
        return functional.linear(x, weight)
    x = x.contiguous()
    rows, depth = x.shape
    features = weight.shape[0] * PANEL
    y = torch.empty(rows, features)
    _library().outcrop_linear(
        x.data_ptr(), weight.data_ptr(), y.data_ptr(), rows, features, depth, _FORMATS[weight.dtype]
    )
    return y


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    tokens, features = x.shape
    _library().outcrop_rms_norm(x.data_ptr(), weight.data_ptr(), y.data_ptr(), tokens, features, eps)
    return y


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    tokens, heads, dim = x.shape
    y = torch.empty(tokens, heads, dim)
    _library().outcrop_rope(
        x.data_ptr(), cos.data_ptr(), sin.data_ptr(), y.data_ptr(), tokens, heads, dim, _row_stride(x)
    )
    return y


def kv_write(pool: Tensor, slots: Tensor, values: Tensor) -> Tensor:
    """Writes in place."""
    tokens, heads, dim = values.shape
    _library().outcrop_kv_write(
        values.data_ptr(),
        pool.data_ptr(),
        slots.data_ptr(),
        tokens,
        heads * dim,
        _row_stride(values),
        _FORMATS[pool.dtype],
    )
    return pool


def paged_attention(
    query: Tensor, key_pool: Tensor, value_pool: Tensor, block_tables: Tensor, positions: Tensor
) -> Tensor:
    query = query.contiguous()
    rows, width, heads, dim = query.shape
    _, block_size, kv_heads, _ = key_pool.shape
    out = torch.empty_like(query)
    _library().outcrop_attention(
        query.data_ptr(),
        key_pool.data_ptr(),
        value_pool.data_ptr(),
        block_tables.data_ptr(),
        positions.data_ptr(),
        out.data_ptr(),
        rows,
        width,
        heads,
        kv_heads,
        dim,
        block_size,
        block_tables.shape[1],
        _FORMATS[key_pool.dtype],
    )
    return out


def swiglu(gate_up: Tensor) -> Tensor:
    tokens, both = gate_up.shape
    y = torch.empty(tokens, both // 2)
    _library().outcrop_swiglu(gate_up.contiguous().data_ptr(), y.data_ptr(), tokens, both // 2)
    return y


def argmax(logits: Tensor) -> Tensor:
    """The first of the largest of each row of logits [R, V] -> int32 [R]."""
    logits = logits.contiguous()
    rows, vocab = logits.shape
    token, largest = torch.empty(rows, dtype=torch.int32), torch.empty(rows)
    _library().outcrop_argmax(logits.data_ptr(), token.data_ptr(), largest.data_ptr(), rows, vocab)
    return token


def sample(logits: Tensor, sampling: Tensor, draws: Tensor) -> Tensor:
    """Top-k only for the rows that draw."""
    tokens = argmax(logits)
    drawing = (sampling[:, 0] > 0).nonzero()[:, 0]
    if len(drawing):
        tokens[drawing] = reference.sample(logits[drawing], sampling[drawing], draws[drawing])
    return tokens


def _row_stride(x: Tensor) -> int:
    """Floats from one token to the next of x [tokens, heads, dim], which may be a slice of wider rows."""
    if x.stride(2) != 1 or (x.shape[1] > 1 and x.stride(1) != x.shape[2]):
        raise ValueError(f"each token's {x.shape[1]} x {x.shape[2]} values must lie together")
    return x.stride(0)


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "pack": pack,
    "linear": linear,
    "rms_norm": rms_norm,
    "rope": rope,
    "kv_write": kv_write,
    "paged_attention": paged_attention,
    "swiglu": swiglu,
    "sample": sample,
}
