"""Quantised weights: what the numbers mean, and the native products of integers against the reference."""

import pytest
import torch
from torch import Tensor

from outcrop_kernels import reference
from outcrop_kernels.cpu.native import operations
from outcrop_kernels.cpu.native.library import NativeUnavailable, start
from outcrop_kernels.quantised import GROUP, Quantised

FORMATS = ("int8 channels", "int8 groups", "int4 groups", "int4 ranges")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


@pytest.fixture(params=["portable", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> str:
    try:
        return start(threads=2, isa=request.param)
    except NativeUnavailable as reason:
        pytest.skip(str(reason))


def random_weight(format: str, features: int, depth: int) -> Quantised[Tensor]:
    """Codes over their whole range, the lowest that a file may hold included; scales exact in float16."""
    kind, _, spread = format.partition(" ")
    bits = 4 if kind == "int4" else 8
    low, high = {"int8": (-128, 128), "int4": (0, 16) if spread == "ranges" else (-8, 8)}[kind]
    codes = torch.randint(low, high, (features, depth), dtype=torch.int8)
    groups = 1 if spread == "channels" else depth // GROUP
    scale, minimum = (torch.randn(features, groups).to(torch.float16).float() for _ in range(2))
    return Quantised(codes, scale, minimum if spread == "ranges" else None, bits)


# -- what the numbers mean -------------------------------------------------------------------------


def test_channels_are_rounded_to_the_nearest_code_of_their_own_scale() -> None:
    weight = torch.randn(6, 40) * torch.logspace(-6, 3, 6)[:, None]
    weight[2] = 0
    quantised = reference.quantise_channels(weight)
    assert int(quantised.codes.abs().max()) == 127
    assert not quantised.codes[2].any()
    error = (reference.dequantised(quantised) - weight).abs()
    assert bool((error <= quantised.scale * 0.5001).all())


def test_activations_are_rounded_to_the_nearest_code_of_their_group() -> None:
    x = torch.randn(5, 4 * GROUP) * torch.logspace(-6, 3, 5)[:, None]
    x[1, GROUP : 2 * GROUP] = 0
    codes, scale = reference.quantise_activations(x)
    assert bool((codes.abs().amax(dim=-1)[[0, 2, 3, 4]] == 32767).all())
    error = (codes * scale[..., None]).reshape(5, -1) - x
    assert bool((error.abs() <= scale.repeat_interleave(GROUP, dim=1) * 0.51).all())


@pytest.mark.parametrize("format", FORMATS)
def test_the_product_of_integers_is_near_the_product_of_the_numbers(format: str) -> None:
    """Near: by as much as activations lose to rounding. And exact for activations that lose nothing."""
    weight, x = random_weight(format, 48, 4 * GROUP), torch.randn(9, 4 * GROUP)
    exact = x @ reference.dequantised(weight).T
    error = (reference.linear_quantised(x, weight) - exact).norm() / exact.norm()
    assert 0 < float(error) < 1e-4
    codes = torch.randint(-32767, 32768, (9, 4, GROUP)).float()
    codes[..., 0] = 32767
    whole = codes.reshape(9, -1)
    wanted = whole.double() @ reference.dequantised(weight).double().T
    torch.testing.assert_close(reference.linear_quantised(whole, weight).double(), wanted, rtol=1e-5, atol=30)


# -- native against the reference ------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 9, 13, 64, 131])
@pytest.mark.parametrize(("features", "depth"), [(16, 32), (48, 96), (160, 576), (64, 1536)])
def test_native_products_are_the_references(
    isa: str, rows: int, features: int, depth: int, format: str
) -> None:
    weight, x = random_weight(format, features, depth), torch.randn(rows, depth) * 3
    got, wanted = operations.linear(x, operations.pack(weight)), reference.linear_quantised(x, weight)
    scale = float(wanted.abs().max())
    assert float((got - wanted).abs().max()) < 2e-6 * scale


@pytest.mark.parametrize("format", FORMATS)
def test_the_largest_sums_do_not_overflow(isa: str, format: str) -> None:
    for code in (-128, 127) if format.startswith("int8") else (0, 15) if "ranges" in format else (-8, 7):
        weight = random_weight(format, 32, 8 * GROUP)
        weight.codes[:] = code
        for value in (-5.0, 5.0):
            x = torch.full((7, 8 * GROUP), value)
            got, wanted = operations.linear(x, operations.pack(weight)), reference.linear_quantised(x, weight)
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_is_the_same_alone_and_in_company(isa: str, format: str) -> None:
    x, weight = torch.randn(40, 576), operations.pack(random_weight(format, 96, 576))
    together = operations.linear(x, weight)
    for rows in (1, 2, 3, 4, 5, 7, 8):
        for row in range(0, 40 - rows, 5):
            assert torch.equal(operations.linear(x[row : row + rows], weight), together[row : row + rows])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_stays_so_and_spoils_no_other(isa: str, bad: float) -> None:
    x, weight = torch.randn(5, 96), random_weight("int8 channels", 32, 96)
    clean = operations.linear(x, operations.pack(weight))
    x[2, 40] = bad
    got = operations.linear(x, operations.pack(weight))
    assert bool(got[2].isnan().all())
    assert torch.equal(got[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])
    assert bool(reference.linear_quantised(x, weight)[2].isnan().all())


def test_tiny_and_huge_activations(isa: str) -> None:
    weight = random_weight("int8 channels", 16, 96)
    for size in (0.0, 1e-38, 1e-31, 1e-29, 1e30):
        x = torch.randn(3, 96) * size
        got, wanted = operations.linear(x, operations.pack(weight)), reference.linear_quantised(x, weight)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=size * 1e-3)


@pytest.mark.parametrize("shape", [(17, 64), (32, 48)])
def test_a_weight_that_does_not_divide_is_multiplied_in_float32(isa: str, shape: tuple[int, int]) -> None:
    weight, x = reference.quantise_channels(torch.randn(shape)), torch.randn(3, shape[1])
    wanted = x @ reference.dequantised(weight).T
    torch.testing.assert_close(operations.linear(x, operations.pack(weight)), wanted)


@pytest.mark.parametrize(("format", "bits"), [*zip(FORMATS, (8, 8.5, 4.5, 5), strict=True)])
def test_packed_weights_take_the_memory_that_their_bits_take(format: str, bits: float) -> None:
    weight = random_weight(format, 64, 1024)
    spare = 64 * 4 if format == "int8 channels" else 0
    assert operations.pack(weight).nbytes == 64 * 1024 * bits / 8 + spare
