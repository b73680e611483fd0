"""Llama 3.1's rotary frequency scaling, as parameters and as the table that GGUF files hold.

llama.cpp's converter writes no parameters but `rope_freqs.weight`: for each of the head_dim/2 rotary
frequencies, what to divide it by.
"""

from __future__ import annotations

import math

import numpy as np

from outcrop_compile.checkpoint.arrays import Array
from outcrop_compile.config import RopeScaling

_TOLERANCE = 1e-4  # relative; the converter computes in float32


def divisors(scaling: RopeScaling, theta: float, head_dim: int) -> Array:
    """What each rotary frequency is divided by: float64 [head_dim / 2].

    Short wavelengths are left alone, those beyond original/low_freq_factor are divided by `factor`, and
    the frequencies in between are interpolated (Meta's `apply_scaling`)."""
    turns = scaling.original_max_position_embeddings / _wavelengths(theta, head_dim)
    band = scaling.high_freq_factor - scaling.low_freq_factor
    smooth = np.clip((turns - scaling.low_freq_factor) / band, 0.0, 1.0)
    return np.asarray(1.0 / ((1.0 - smooth) / scaling.factor + smooth))


def from_divisors(table: Array, theta: float, head_dim: int) -> RopeScaling | None:
    """The scaling whose `divisors` are this table; None for a table of ones.

    (original, low, high) matter only up to a common multiple; low is taken to be 1, as in every Llama.
    Raises ValueError if no Llama 3 scaling gives the table.
    """
    table = table.astype(np.float64)
    if table.shape != (head_dim // 2,) or not np.isfinite(table).all() or table.min() <= 0:
        raise ValueError(f"not {head_dim // 2} positive numbers")
    factor = float(table.max())
    if np.allclose(table, 1.0, rtol=_TOLERANCE):
        return None
    candidates = [RopeScaling(round(factor, 6), 1.0, 4.0, 8192), _fit(table, factor, theta, head_dim)]
    for scaling in candidates:
        if scaling and np.allclose(divisors(scaling, theta, head_dim), table, rtol=_TOLERANCE):
            return scaling
    raise ValueError("not a table of Llama 3 frequency scaling")


def _wavelengths(theta: float, head_dim: int) -> Array:
    return np.asarray(2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim))


def _fit(table: Array, factor: float, theta: float, head_dim: int) -> RopeScaling | None:
    """Solve for original and high from the interpolated frequencies, on which `smooth` is a line in
    1/wavelength: smooth = (original/wavelength - 1) / (high - 1)."""
    between = (table > 1 + _TOLERANCE) & (table < factor * (1 - _TOLERANCE))
    if between.sum() < 2:
        return None
    smooth = (1 / table[between] - 1 / factor) / (1 - 1 / factor)
    slope, offset = np.polyfit(1 / _wavelengths(theta, head_dim)[between], smooth, 1)
    if slope <= 0 or offset >= 0:
        return None
    band = -1 / float(offset)
    return RopeScaling(round(factor, 6), 1.0, round(1 + band, 3), round(float(slope) * band))
