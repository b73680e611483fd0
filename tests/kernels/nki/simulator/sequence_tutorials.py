"""The algorithms of AWS's NKI tutorials that go along a sequence: attention, rotary embedding and a selective
scan, written anew in the common subset, with plain torch beside."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from outcrop_kernels.nki.language import nisa, nki, nl


@nki.jit
def rotary(query, key, cos, sin):
    """query, key [heads, S, D] by cos, sin [S, D], both halves of which are alike -> [2, heads, S, D]."""
    heads, length, size = query.shape
    half = size // 2
    out = nl.ndarray((2, heads, length, size), dtype=query.dtype, buffer=nl.shared_hbm)
    for head in nl.affine_range(heads):
        for tile in nl.affine_range((length + 127) // 128):
            count = min(128, length - tile * 128)
            rows = nl.ds(tile * 128, count)
            angles = nl.ndarray((count, 2, size), dtype=nl.float32, buffer=nl.sbuf)
            nisa.dma_copy(dst=angles[:, 0, :], src=cos[rows, :])
            nisa.dma_copy(dst=angles[:, 1, :], src=sin[rows, :])
            for which in range(2):
                source = query if which == 0 else key
                given = nl.ndarray((count, size), dtype=query.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=given, src=source[head, rows, :])
                turned = nl.ndarray((count, size), dtype=nl.float32, buffer=nl.sbuf)
                nisa.tensor_tensor(dst=turned, data1=given, data2=angles[:, 0, :], op=nl.multiply)
                across = nl.ndarray((count, half), dtype=nl.float32, buffer=nl.sbuf)
                for side in range(2):
                    mine, other = nl.ds(side * half, half), nl.ds((1 - side) * half, half)
                    nisa.tensor_tensor(
                        dst=across, data1=given[:, other], data2=angles[:, 1, mine], op=nl.multiply
                    )
                    nisa.tensor_tensor(
                        dst=turned[:, mine],
                        data1=turned[:, mine],
                        data2=across,
                        op=nl.subtract if side == 0 else nl.add,
                    )
                result = nl.ndarray((count, size), dtype=query.dtype, buffer=nl.sbuf)
                nisa.tensor_copy(dst=result, src=turned)
                nisa.dma_copy(dst=out[which, head, rows, :], src=result)
    return out


@nki.jit
def self_attention(query, key, value):
    """Attention of one head to all keys, before and behind: the scores of 128 queries are made at once, and
    the values are the stationary side. query, key, value [S, D] -> [S, D]."""
    length, size = query.shape
    tiles, kind = length // 128, query.dtype
    out = nl.ndarray((length, size), dtype=kind, buffer=nl.shared_hbm)
    kept = nl.ndarray((128, tiles, size), dtype=kind, buffer=nl.sbuf)
    asked = nl.ndarray((size, tiles, 128), dtype=kind, buffer=nl.sbuf)
    keys = nl.ndarray((size, tiles, 128), dtype=kind, buffer=nl.sbuf)
    for tile in nl.affine_range(tiles):
        nisa.dma_copy(dst=kept[:, tile, :], src=value[nl.ds(tile * 128, 128), :])
        _turn(asked[:, tile, :], query[nl.ds(tile * 128, 128), :])
        _turn(keys[:, tile, :], key[nl.ds(tile * 128, 128), :])
    for tile in nl.affine_range(tiles):
        scores = nl.ndarray((128, tiles, 128), dtype=nl.float32, buffer=nl.sbuf)
        peaks = nl.ndarray((128, tiles), dtype=nl.float32, buffer=nl.sbuf)
        for piece in nl.affine_range(tiles):
            product = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(dst=product, stationary=asked[:, tile, :], moving=keys[:, piece, :])
            nisa.activation(dst=scores[:, piece, :], op=nl.copy, data=product, scale=1.0 / math.sqrt(size))
            nisa.tensor_reduce(
                dst=peaks[:, nl.ds(piece, 1)], op=nl.maximum, data=scores[:, piece, :], axis=1, negate=True
            )
        peak = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=peak, op=nl.minimum, data=peaks, axis=1)
        weights = nl.ndarray((128, tiles, 128), dtype=kind, buffer=nl.sbuf)
        total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation_reduce(
            dst=weights, op=nl.exp, data=scores, reduce_op=nl.add, reduce_res=total, bias=peak
        )
        nisa.reciprocal(dst=total, data=total)
        mixed = nl.ndarray((size, 128), dtype=nl.float32, buffer=nl.psum)
        for piece in nl.affine_range(tiles):
            turned = nl.ndarray((128, 128), dtype=kind, buffer=nl.psum)
            nisa.nc_transpose(dst=turned, data=weights[:, piece, :])
            moving = nl.ndarray((128, 128), dtype=kind, buffer=nl.sbuf)
            nisa.tensor_copy(dst=moving, src=turned)
            nisa.nc_matmul(dst=mixed, stationary=kept[:, piece, :], moving=moving)
        across = nl.ndarray((size, 128), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=across, src=mixed)
        back = nl.ndarray((128, size), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_transpose(dst=back, data=across)
        result = nl.ndarray((128, size), dtype=kind, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=result, data=back, op0=nl.multiply, operand0=total)
        nisa.dma_copy(dst=out[nl.ds(tile * 128, 128), :], src=result)
    return out


def _turn(dst, src):
    """src [128, D] of HBM into dst [D, 128]."""
    given = nl.ndarray(src.shape, dtype=src.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=given, src=src)
    turned = nl.ndarray(dst.shape, dtype=src.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=turned, data=given)
    nisa.tensor_copy(dst=dst, src=turned)


@nki.jit
def attention(query, key, value):
    """Causal attention of one head with a running softmax. query, key [D, S]; value [S, D] -> [S, D]."""
    size, length = query.shape
    out = nl.ndarray((length, size), dtype=value.dtype, buffer=nl.shared_hbm)
    for tile in nl.affine_range(length // 128):
        asked = nl.ndarray((size, 128), dtype=query.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=asked, src=query[:, nl.ds(tile * 128, 128)])
        # The negated peak so far, the sum of exponentials, and the weighted values, all [tokens, ...].
        peak = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
        total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
        mixed = nl.ndarray((128, size), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(peak, value=1.0e30)
        nisa.memset(total, value=0.0)
        nisa.memset(mixed, value=0.0)
        for piece in nl.sequential_range(tile + 1):
            _attend(query, key, value, asked, peak, total, mixed, tile, piece)
        nisa.reciprocal(dst=total, data=total)
        result = nl.ndarray((128, size), dtype=value.dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=result, data=mixed, op0=nl.multiply, operand0=total)
        nisa.dma_copy(dst=out[nl.ds(tile * 128, 128), :], src=result)
    return out


def _attend(query, key, value, asked, peak, total, mixed, tile, piece):
    """128 queries look at 128 keys and values."""
    size, _ = query.shape
    keys = nl.ndarray((size, 128), dtype=key.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=keys, src=key[:, nl.ds(piece * 128, 128)])
    values = nl.ndarray((128, size), dtype=value.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=values, src=value[nl.ds(piece * 128, 128), :])
    products = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=products, stationary=asked, moving=keys)
    scores = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=scores, data=products, op0=nl.multiply, operand0=1.0 / math.sqrt(size))
    if piece == tile:
        nisa.affine_select(
            dst=scores,
            pattern=[[-1, 128]],
            offset=0,
            channel_multiplier=1,
            on_true_tile=scores,
            on_false_value=-1.0e30,
            cmp_op=nl.greater_equal,
        )
    higher = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=higher, op=nl.maximum, data=scores, axis=1, negate=True)
    nisa.tensor_tensor(dst=higher, data1=higher, data2=peak, op=nl.minimum)
    # What was summed so far shrinks by exp(old peak - new peak).
    shrink = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=shrink, data1=higher, data2=peak, op=nl.subtract)
    nisa.activation(dst=shrink, op=nl.exp, data=shrink)
    nisa.tensor_copy(dst=peak, src=higher)
    weights = nl.ndarray((128, 128), dtype=value.dtype, buffer=nl.sbuf)
    added = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation_reduce(
        dst=weights, op=nl.exp, data=scores, reduce_op=nl.add, reduce_res=added, bias=higher
    )
    nisa.scalar_tensor_tensor(
        dst=total, data=total, op0=nl.multiply, operand0=shrink, op1=nl.add, operand1=added
    )
    turned = nl.ndarray((128, 128), dtype=value.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=turned, data=weights)
    stationary = nl.ndarray((128, 128), dtype=value.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=stationary, src=turned)
    product = nl.ndarray((128, size), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=product, stationary=stationary, moving=values)
    nisa.scalar_tensor_tensor(
        dst=mixed, data=mixed, op0=nl.multiply, operand0=shrink, op1=nl.add, operand1=product
    )


@nki.jit
def mamba(delta, u, a, b, c):
    """A selective scan. delta, u [C, S]; a [C, N]; b, c [N, S] -> [C, S]."""
    channels, length = delta.shape
    states = a.shape[1]
    out = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.shared_hbm)
    step = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.sbuf)
    given = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.sbuf)
    decay = nl.ndarray((channels, states), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=step, src=delta)
    nisa.dma_copy(dst=given, src=u)
    nisa.dma_copy(dst=decay, src=a)
    nisa.tensor_tensor(dst=given, data1=given, data2=step, op=nl.multiply)
    total = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(total, value=0.0)
    for state in nl.sequential_range(states):
        kept = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=kept, op=nl.exp, data=step, scale=decay[:, nl.ds(state, 1)])
        line = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=line, src=b.ap(pattern=[[0, channels], [1, length]], offset=state * length))
        nisa.tensor_tensor(dst=line, data1=line, data2=given, op=nl.multiply)
        scanned = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor_scan(dst=scanned, data0=kept, data1=line, initial=0.0, op0=nl.multiply, op1=nl.add)
        read = nl.ndarray((channels, length), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=read, src=c.ap(pattern=[[0, channels], [1, length]], offset=state * length))
        nisa.tensor_tensor(dst=read, data1=read, data2=scanned, op=nl.multiply)
        nisa.tensor_tensor(dst=total, data1=total, data2=read, op=nl.add)
    nisa.dma_copy(dst=out, src=total)
    return out


# -- the same in torch -------------------------------------------------------------------------------


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query.double().T @ key.double() / math.sqrt(len(query))
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, -math.inf).softmax(dim=-1) @ value.double()


def plain_self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query.double() @ key.double().T / math.sqrt(query.shape[1])
    return scores.softmax(dim=-1) @ value.double()


def plain_rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    both = torch.stack((query, key)).double()
    low, high = both.chunk(2, dim=-1)
    return both * cos.double() + torch.cat((-high, low), dim=-1) * sin.double()


def plain_mamba(delta: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    state, outputs = torch.zeros_like(a, dtype=torch.float64), []
    for at in range(delta.shape[1]):
        state = torch.exp(delta[:, at, None].double() * a) * state
        state = state + (delta[:, at] * u[:, at])[:, None] * b[:, at]
        outputs.append((state * c[:, at]).sum(dim=1))
    return torch.stack(outputs, dim=1)
