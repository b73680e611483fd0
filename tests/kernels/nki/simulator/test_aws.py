"""AWS's simulator, where it is installed, says the same; and how its package is found and asked."""

from pathlib import Path

import pytest
import torch
from tests.kernels.nki.simulator.tutorials import Case, cases

from outcrop_kernels.nki import aws
from outcrop_kernels.nki.cases import distance, first_cases
from outcrop_kernels.nki.simulator import simulate

RUNS = "tests.kernels.nki.simulator.tutorials:runs"
KERNELS = "outcrop_kernels.nki.cases:runs"


def _agree(case: Case, theirs: torch.Tensor) -> None:
    ours, _ = simulate(case.kernel, *case.arguments)
    far = float((ours.double() - theirs.double()).abs().max())
    assert theirs.dtype == ours.dtype
    assert far <= 2 * case.tolerance * float(ours.double().abs().max())


@pytest.mark.skipif(not aws.installed(), reason="AWS's nki package comes with the Neuron SDK only")
def test_aws_simulator_agrees() -> None:
    theirs = aws.results(RUNS)
    for case in cases():
        _agree(case, *theirs[case.name])


def _kernels_agree(theirs: dict[str, tuple[torch.Tensor, ...]]) -> None:
    """The scalar engine's functions may be approximations: twice the tolerance is let pass."""
    chosen = first_cases()
    assert len(theirs) == len(chosen)
    for case in chosen:
        entry, _, expected = case.make()
        found = theirs[f"{case.kernel} {case.words}"]
        error = max(distance(one, other) for one, other in zip(found, expected, strict=True))
        assert error <= 2 * entry.contract.tolerance[case.dtype], case.words


@pytest.mark.skipif(not aws.installed(), reason="AWS's nki package comes with the Neuron SDK only")
def test_aws_simulator_agrees_about_every_kernel() -> None:
    _kernels_agree(aws.results(KERNELS))


PACKAGE = {
    "__init__.py": """
from outcrop_kernels.nki.simulator import simulate as ours
from outcrop_kernels.nki.simulator.root import jit
import inspect, os

def simulate(kernel):
    assert os.environ["NEURON_PLATFORM_TARGET_OVERRIDE"] == "trn1"
    mutable = {"pool"} & set(inspect.signature(kernel.func).parameters)
    return lambda *arguments: ours(kernel, *arguments, seeds=(), mutable=mutable)[0]
""",
    "isa.py": "from outcrop_kernels.nki.simulator.isa import *\n",
    "language.py": """
import sys
from outcrop_kernels.nki.simulator import language
sys.modules[__name__] = language
""",
}


@pytest.fixture
def package(tmp_path: Path) -> str:
    """Where a package of AWS's layout is that passes everything on to the simulator here."""
    (tmp_path / "nki").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "nki" / name).write_text(text)
    return str(tmp_path)


@pytest.mark.slow
def test_every_kernel_can_be_asked_about(package: str) -> None:
    _kernels_agree(aws.results(KERNELS, paths=[package]))


def test_an_installed_package_is_bound_and_asked(package: str) -> None:
    theirs = aws.results(RUNS.replace("runs", "few_runs"), paths=[package])
    assert set(theirs) == {case.name for case in cases()[:3]}
    for case in cases()[:3]:
        _agree(case, *theirs[case.name])


@pytest.mark.skipif(aws.installed(), reason="AWS's nki package is installed")
def test_without_the_package_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="AWS's nki package is not installed"):
        aws.run(RUNS, str(tmp_path / "results"))
