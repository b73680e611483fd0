"""The algorithms of AWS's NKI tutorials give the right answers, in any order of their loops."""

import pytest
import torch
from tests.kernels.nki.simulator.tutorials import Case, cases

from outcrop_kernels.nki.simulator import simulate


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_tutorials_algorithm_gives_what_torch_does(case: Case) -> None:
    got, _ = simulate(case.kernel, *case.arguments, seeds=(0, 1))
    far = float((got.double() - case.expected.double()).abs().max())
    assert got.shape == case.expected.shape
    assert far <= case.tolerance * float(case.expected.double().abs().max())


def test_arguments_stay_as_they_are_and_numpy_gives_numpy() -> None:
    case = cases()[0]
    before = [argument.clone() for argument in case.arguments]
    got, _ = simulate(case.kernel, *(argument.numpy() for argument in case.arguments))
    assert (torch.from_numpy(got) == case.expected).all()
    assert all(torch.equal(one, other) for one, other in zip(before, case.arguments, strict=True))
