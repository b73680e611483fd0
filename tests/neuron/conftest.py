"""A small artifact, and where processes find the stand-in for the Neuron SDK."""

import os
from pathlib import Path

import pytest
from neuron_artifact import SHAPES, write_artifact
from tiny_models import LLAMA_32, tiny_model, write_huggingface

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_model(LLAMA_32, hidden_size=64, intermediate_size=128, head_dim=16)
    return write_huggingface(model, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    write_artifact(folder, checkpoint, shapes=SHAPES)
    return folder


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started from now on find the stand-in for the Neuron SDK."""
    folders = [str(TESTS / "neuron" / "sdk"), str(TESTS), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
