"""AWS's simulator, where it is installed, says the same; and how its package is found and asked."""

from pathlib import Path

import pytest
import torch
from tests.kernels.nki.simulator.tutorials import Case, cases

from outcrop_kernels.nki import aws
from outcrop_kernels.nki.simulator import simulate

RUNS = "tests.kernels.nki.simulator.tutorials:runs"


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


PACKAGE = {
    "__init__.py": """
from outcrop_kernels.nki.simulator import simulate as ours
from outcrop_kernels.nki.simulator.root import jit
import os

def simulate(kernel):
    assert os.environ["NEURON_PLATFORM_TARGET_OVERRIDE"] == "trn1"
    return lambda *arguments: ours(kernel, *arguments, seeds=())[0]
""",
    "isa.py": "from outcrop_kernels.nki.simulator.isa import *\n",
    "language.py": """
import sys
from outcrop_kernels.nki.simulator import language
sys.modules[__name__] = language
""",
}


def test_an_installed_package_is_bound_and_asked(tmp_path: Path) -> None:
    """With a package of AWS's layout that passes everything on to the simulator here."""
    (tmp_path / "nki").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "nki" / name).write_text(text)
    theirs = aws.results(RUNS.replace("runs", "few_runs"), paths=[str(tmp_path)])
    assert set(theirs) == {case.name for case in cases()[:3]}
    for case in cases()[:3]:
        _agree(case, *theirs[case.name])


@pytest.mark.skipif(aws.installed(), reason="AWS's nki package is installed")
def test_without_the_package_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="AWS's nki package is not installed"):
        aws.run(RUNS, str(tmp_path / "results"))
