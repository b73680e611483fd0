"""The suite for the first hour on a device: skipped without one, and sound when its device is a stand-in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parent / "device"


def suite(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(SUITE), "-rA", "-p", "no:cacheprovider", *options],
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
