"""bfloat16 without a bfloat16 type."""

import numpy as np
import pytest
import torch

from outcrop_compile.checkpoint.arrays import convert_into, to_bfloat16

SPECIAL = [
    0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0xFF7FFFFF,  # zeros, infinities, largest
    0x00000001, 0x807FFFFF, 0x00008000, 0x00018000, 0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF,  # ties
]  # fmt: skip
NANS = [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F80FFFF]


def floats(bits) -> np.ndarray:
    return np.array(bits, np.uint32).view(np.float32)


def test_rounding_is_that_of_torch():
    random = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint32)
    values = floats(np.concatenate([np.array(SPECIAL, np.uint32), random]))
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(to_bfloat16(values), expected)


def test_nan_stays_nan_of_its_sign():
    bits = to_bfloat16(floats(NANS))
    assert np.isnan(floats(bits.astype(np.uint32) << 16)).all()
    np.testing.assert_array_equal(bits >> 15, np.array(NANS, np.uint32) >> 31)


@pytest.mark.parametrize("source", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("target", ["float32", "bfloat16"])
def test_conversions_are_those_of_torch(source, target):
    values = torch.randn(64, 33, generator=torch.Generator().manual_seed(0)).to(getattr(torch, source))
    expected = values.to(getattr(torch, target))
    stored = values.view(torch.uint16).numpy() if source == "bfloat16" else values.numpy()
    wanted = expected.view(torch.uint16).numpy() if target == "bfloat16" else expected.numpy()
    out = np.zeros((64, 50), wanted.dtype)[:, 3:36]  # strided, as a fused matrix's columns are
    convert_into(stored, out)
    np.testing.assert_array_equal(out, wanted)


def test_widening_misaligned_bytes():
    """safetensors promises no alignment."""
    values = np.arange(7, dtype=np.float32)
    data = np.frombuffer(b"x" + to_bfloat16(values).tobytes(), np.uint8)[1:].view("<u2")
    out = np.empty(7, np.float32)
    convert_into(data, out)
    np.testing.assert_array_equal(out, values)
