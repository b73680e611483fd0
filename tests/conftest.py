"""Makes the helper modules of the test folders importable, and keeps the clock out of property tests."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for folder in (".", "engine", "doctor", "simulate"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

# Packed weights and state are kept for the servers of this run (whose processes inherit the variables), not
# in the home.
if "PYTEST_XDIST_WORKER" not in os.environ:
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        os.environ[variable] = tempfile.mkdtemp(prefix="outcrop-tests-")
        atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)

# Where AWS's nki package is installed too, the tests are of the simulator.
os.environ.setdefault("OUTCROP_NKI", "simulator")

collect_ignore = ["example_app"]  # a project of its own, which tests/dev runs

# A busy machine is no defect of the code under test. `make test-all` takes the profile "thorough".
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=30)
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    from engine_kinds import ENGINES, OWN

    parser.addoption(
        "--engine",
        choices=ENGINES,
        default=OWN,
        help="The engine of the servers of tests/conformance and of the clients' matrix in tests/clients; "
        "vllm's are the real one, on the demo weights (make vllm).",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A real model takes its time."""
    from engine_kinds import OWN

    if config.getoption("--engine") != OWN:
        for item in items:
            item.add_marker(pytest.mark.timeout(3600))
