"""The device and the artifact under test; without either, every test is skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outcrop.backends.neuron.backend import NeuronBackend
from outcrop_compile.artifact import Artifact, open_artifact

DEVICE = Path("/dev/neuron0")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("device")
    group.addoption("--artifact", type=Path, help="the artifact to run, of `outcrop compile build`")
    group.addoption("--checkpoint", type=Path, help="the checkpoint that it was built of")
    group.addoption("--with-kernels", type=Path, action="append", help="another artifact, with kernels")
    group.addoption("--stand-in", action="store_true", help="a dry run without a device: see README.md")


@pytest.fixture(scope="session")
def artifact(request: pytest.FixtureRequest) -> Artifact:
    path = request.config.getoption("--artifact", default=None)
    if not DEVICE.exists() and not request.config.getoption("--stand-in", default=False):
        pytest.skip(f"there is no Neuron device ({DEVICE})")
    if path is None:
        pytest.skip("no --artifact FOLDER is given: see tests/neuron/device/README.md")
    return open_artifact(path)


@pytest.fixture(scope="session")
def checkpoint(request: pytest.FixtureRequest, artifact: Artifact) -> Path:
    path: Path | None = request.config.getoption("--checkpoint", default=None)
    if path is None:
        pytest.skip("no --checkpoint PATH is given: there is nothing to compare with")
    return path


@pytest.fixture(scope="session")
def backend(artifact: Artifact) -> Iterator[NeuronBackend]:
    """One for all tests, loaded as the server does; warmed up by the first of them."""
    from outcrop.backends.neuron.launch import open_backend
    from outcrop.engine.config import EngineConfig

    config = EngineConfig(model=str(artifact.path), backend="neuron", artifact=str(artifact.path))
    loaded, description = open_backend(config, lambda stage, fraction: None)
    print(f"REPORT loaded: {description}")
    yield loaded
    loaded.close()
