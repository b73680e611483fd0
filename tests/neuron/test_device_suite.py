"""The suite for the first hour on a device: skipped without one, and sound when its device is a stand-in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from neuron_artifact import SHAPES, write_artifact

from outcrop_compile.artifact.kernels import kernel_digests

SUITE = Path(__file__).parent / "device"
FIRST_HOUR = SUITE / "test_first_hour.py"


def suite(*options: str, of: Path = FIRST_HOUR) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(of), "-rA", "-p", "no:cacheprovider", *options],
        capture_output=True, text=True, cwd=SUITE.parent.parent.parent, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_device_it_is_skipped_and_says_why() -> None:
    output = suite()
    assert re.search(r"\b9 skipped\b", output), output
    assert "there is no Neuron device (/dev/neuron0)" in output


@pytest.mark.slow
@pytest.mark.usefixtures("sdk")
def test_steps_with_kernels_are_compared_with_those_without(
    artifact: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The kernels run in the simulator here, so the times mean nothing."""
    kernels = kernel_digests(["rope", "kv_cache_write"])
    write_artifact(tmp_path, checkpoint, shapes=SHAPES, kernels=kernels)
    output = suite(
        "--stand-in", "--artifact", str(artifact), "--with-kernels", str(tmp_path), "-k", "test_3",
        of=SUITE / "test_kernels.py",
    )  # fmt: skip
    assert re.search(r"\b1 passed\b", output), output
    assert re.search(
        r"REPORT with rope, kv_cache_write: decode \d+ rows, .* times as fast as without", output
    )
    assert "of each answer (-1: none): [-1, -1, -1, -1, -1, -1]" in output


@pytest.mark.slow
@pytest.mark.usefixtures("sdk")
def test_with_a_stand_in_for_the_device_it_passes(artifact: Path, checkpoint: Path) -> None:
    """But for what looks at the machine itself."""
    output = suite(
        "--stand-in", "--artifact", str(artifact), "--checkpoint", str(checkpoint), "-k", "not fit"
    )
    assert re.search(r"\b8 passed\b", output), output
    assert "REPORT status of an index out of bounds: NRT_EXEC_OOB (1006)" in output
    assert (
        "REPORT tokens equal to the CPU's before the first that differs: [24, 24, 24, 24, 24, 24]" in output
    )
